from modern_di_replicas.testing.cluster import LocalCluster
from modern_di_replicas.testing.server import LocalServer


__all__ = ["LocalCluster", "LocalServer"]

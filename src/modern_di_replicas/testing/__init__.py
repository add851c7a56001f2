from modern_di_replicas.testing.cluster import LocalCluster
from modern_di_replicas.testing.databases import create_database, empty_database, strict
from modern_di_replicas.testing.docker import DockerCluster, DockerServer
from modern_di_replicas.testing.faults import fault
from modern_di_replicas.testing.rolled_back import rolled_back
from modern_di_replicas.testing.routing_log import RoutingLog, Visit, routing_log
from modern_di_replicas.testing.server import LocalServer


__all__ = [
    "DockerCluster",
    "DockerServer",
    "LocalCluster",
    "LocalServer",
    "RoutingLog",
    "Visit",
    "create_database",
    "empty_database",
    "fault",
    "rolled_back",
    "routing_log",
    "strict",
]

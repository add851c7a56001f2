from modern_di_replicas.cluster.engines import PrimaryEngine, ReplicaEngine
from modern_di_replicas.cluster.monitor import Monitor
from modern_di_replicas.dependencies import Dependencies, choose_engine, declared_intent
from modern_di_replicas.errors import (
    ConfigurationError,
    NoReplicaAvailable,
    ReplicasError,
    StaleWriteError,
    UnknownGroupError,
    WriteOnReplicaError,
)
from modern_di_replicas.intent import Intent, read_intent, write_intent
from modern_di_replicas.routing.balancing import Balancer
from modern_di_replicas.session import RoutedSession
from modern_di_replicas.settings import Replica, ReplicationSettings


__all__ = [
    "Balancer",
    "ConfigurationError",
    "Dependencies",
    "Intent",
    "Monitor",
    "NoReplicaAvailable",
    "PrimaryEngine",
    "Replica",
    "ReplicaEngine",
    "ReplicasError",
    "ReplicationSettings",
    "RoutedSession",
    "StaleWriteError",
    "UnknownGroupError",
    "WriteOnReplicaError",
    "choose_engine",
    "declared_intent",
    "read_intent",
    "write_intent",
]

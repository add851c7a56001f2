from modern_di_replicas.cluster.engines import PrimaryEngine, ReplicaEngine
from modern_di_replicas.dependencies import Dependencies, choose_engine
from modern_di_replicas.errors import (
    ConfigurationError,
    ReplicasError,
    StaleWriteError,
    UnknownGroupError,
    WriteOnReplicaError,
)
from modern_di_replicas.intent import Intent, read_intent, write_intent
from modern_di_replicas.session import RoutedSession
from modern_di_replicas.settings import Replica, ReplicationSettings


__all__ = [
    "ConfigurationError",
    "Dependencies",
    "Intent",
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
    "read_intent",
    "write_intent",
]

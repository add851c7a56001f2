from modern_di_replicas.client import current_token
from modern_di_replicas.cluster.monitor import Monitor
from modern_di_replicas.cluster.primary_engine import PrimaryEngine
from modern_di_replicas.cluster.replica_engine import ReplicaEngine
from modern_di_replicas.consistency import EVENTUAL, SESSION, STRONG, Bounded
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
from modern_di_replicas.lsn import ConsistencyToken
from modern_di_replicas.routing.balancing import Balancer
from modern_di_replicas.session import RoutedSession
from modern_di_replicas.settings import Replica, ReplicationSettings
from modern_di_replicas.tokens import Tokens


__all__ = [
    "EVENTUAL",
    "SESSION",
    "STRONG",
    "Balancer",
    "Bounded",
    "ConfigurationError",
    "ConsistencyToken",
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
    "Tokens",
    "UnknownGroupError",
    "WriteOnReplicaError",
    "choose_engine",
    "current_token",
    "declared_intent",
    "read_intent",
    "write_intent",
]

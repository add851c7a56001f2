from modern_di_replicas.asgi.tokens import Tokens
from modern_di_replicas.cluster.engines.primary import PrimaryEngine
from modern_di_replicas.cluster.engines.replica import ReplicaEngine
from modern_di_replicas.cluster.monitoring.monitor import Monitor
from modern_di_replicas.consistency.client import current_token
from modern_di_replicas.consistency.levels import EVENTUAL, SESSION, STRONG, Bounded
from modern_di_replicas.consistency.token import ConsistencyToken
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
from modern_di_replicas.session.routed import RoutedSession
from modern_di_replicas.settings import Replica, ReplicationSettings


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

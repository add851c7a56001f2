from modern_di_replicas.cluster.engines.primary import PrimaryEngine
from modern_di_replicas.cluster.engines.replica import ReplicaEngine
from modern_di_replicas.cluster.monitoring.monitor import Monitor
from modern_di_replicas.consistency.carrying import carried_token
from modern_di_replicas.consistency.client import current_token
from modern_di_replicas.consistency.levels import EVENTUAL, SESSION, STRONG, Bounded
from modern_di_replicas.consistency.token import ConsistencyToken
from modern_di_replicas.dependencies import (
    Dependencies,
    choose_engine,
    close_session,
    create_session,
)
from modern_di_replicas.errors import (
    ConfigurationError,
    NoReplicaAvailable,
    NotPicklableError,
    PrimaryUnavailable,
    ReplicasError,
    StaleWriteError,
    TransactionRolledBackError,
    UnknownGroupError,
    WriteOnReplicaError,
)
from modern_di_replicas.integration import declared_intent
from modern_di_replicas.intent import Intent, read_intent, use_primary, write_intent
from modern_di_replicas.jobs import unit_of_work
from modern_di_replicas.routing.balancing import Balancer, Candidate, LeastInUse, Random, RoundRobin
from modern_di_replicas.routing.decision import Cause, Decision
from modern_di_replicas.routing.snapshot import Role, ServerState, Snapshot
from modern_di_replicas.servers import Primary, Replica
from modern_di_replicas.session.factory import SessionFactory
from modern_di_replicas.session.routed import RoutedSession
from modern_di_replicas.settings import Balancing, OnWrite, ReplicationSettings
from modern_di_replicas.tokens.validation import Tokens


__all__ = [
    "EVENTUAL",
    "SESSION",
    "STRONG",
    "Balancer",
    "Balancing",
    "Bounded",
    "Candidate",
    "Cause",
    "ConfigurationError",
    "ConsistencyToken",
    "Decision",
    "Dependencies",
    "Intent",
    "LeastInUse",
    "Monitor",
    "NoReplicaAvailable",
    "NotPicklableError",
    "OnWrite",
    "Primary",
    "PrimaryEngine",
    "PrimaryUnavailable",
    "Random",
    "Replica",
    "ReplicaEngine",
    "ReplicasError",
    "ReplicationSettings",
    "Role",
    "RoundRobin",
    "RoutedSession",
    "ServerState",
    "SessionFactory",
    "Snapshot",
    "StaleWriteError",
    "Tokens",
    "TransactionRolledBackError",
    "UnknownGroupError",
    "WriteOnReplicaError",
    "carried_token",
    "choose_engine",
    "close_session",
    "create_session",
    "current_token",
    "declared_intent",
    "read_intent",
    "unit_of_work",
    "use_primary",
    "write_intent",
]

"""The synchronous half, on psycopg: the names of `modern_di_replicas`, with a `Session`."""

from modern_di_replicas.sync.dependencies import (
    Dependencies,
    choose_engine,
    close_session,
    create_session,
)
from modern_di_replicas.sync.engines import PrimaryEngine, ReplicaEngine
from modern_di_replicas.sync.factory import SessionFactory
from modern_di_replicas.sync.monitor import Monitor
from modern_di_replicas.sync.session import RoutedSession
from modern_di_replicas.sync.units import unit_of_work


__all__ = [
    "Dependencies",
    "Monitor",
    "PrimaryEngine",
    "ReplicaEngine",
    "RoutedSession",
    "SessionFactory",
    "choose_engine",
    "close_session",
    "create_session",
    "unit_of_work",
]

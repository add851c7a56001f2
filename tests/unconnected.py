"""Engines of servers that do not exist, for decisions that need no connection."""

import typing

from modern_di_replicas import PrimaryEngine, Replica, ReplicaEngine, ReplicationSettings
from modern_di_replicas.cluster.engines.create import create_primary_engine, create_replica_engine
from tests.driver import DRIVER


URL: typing.Final = f"postgresql+{DRIVER}://app@{{}}.invalid/shop"


def engines(*replicas: str | Replica, **options: typing.Any) -> tuple[PrimaryEngine, ReplicaEngine]:
    """Return the engines of a primary `db-1` and of replicas with the given names."""
    declared = [Replica(URL.format(one), one) if isinstance(one, str) else one for one in replicas]
    settings = ReplicationSettings(**{"primary": URL.format("db-1"), "replicas": declared, **options})
    primary = create_primary_engine(settings)
    return primary, create_replica_engine(settings, primary)

"""The engines of the two roles, as types of their own."""

import typing

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from modern_di_replicas.cluster.escalation import EscalationPolicy
from modern_di_replicas.cluster.fleet import Fleet, Member
from modern_di_replicas.cluster.health import Health
from modern_di_replicas.cluster.idle import ping_when_idle
from modern_di_replicas.cluster.pool import FleetPool
from modern_di_replicas.cluster.reading import ReadEngines
from modern_di_replicas.settings import ReadIsolation, Replica, ReplicationSettings


class PrimaryEngine(AsyncEngine):
    """The engine of the primary."""


class ReplicaEngine(AsyncEngine):
    """The engine of all replicas, or of one of them.

    The one that `create_replica_engine` returns stands for all: each checkout comes from the replica whose turn
    it is. `choose()` gives the engine of one replica, so that a unit of work stays where it began.
    """

    def __init__(
        self, sync_engine: Engine, *, policy: EscalationPolicy, isolation: ReadIsolation, fleet: Fleet | None = None
    ) -> None:
        super().__init__(sync_engine)
        self.policy = policy
        """What happens when a unit of work leaves its replica."""
        self.fleet = fleet
        """The replicas this engine stands for; None for the engine of one replica."""
        self.read_engines = ReadEngines(sync_engine, isolation=isolation)
        """How sessions read."""
        self.health = Health(sync_engine)
        """Whether this replica is worth trying."""

    @property
    def label(self) -> str:
        """The name of the replica, or what stands for all."""
        return self.sync_engine.logging_name or "replicas"

    def choose(self, group: str | None = None) -> AsyncEngine:
        """Return the engine of the replica whose turn it is in `group`; the primary's when there are no replicas.

        The engine of one replica chooses itself.

        Raises:
            UnknownGroupError: no replica belongs to `group`.

        """
        return self if self.fleet is None else self.fleet.choose(group)

    async def dispose(self, close: bool = True) -> None:  # noqa: FBT001, FBT002  # the signature of AsyncEngine
        """Close the pooled connections of every replica; see `AsyncEngine.dispose`."""
        for member in self.fleet.members if self.fleet else ():
            await member.engine.dispose(close)
        await super().dispose(close)


def create_primary_engine(settings: ReplicationSettings) -> PrimaryEngine:
    """Return the engine of the primary; nothing is connected yet."""
    engine = create_async_engine(
        settings.primary,
        connect_args=_connect_args(settings, role="primary"),
        logging_name="primary",
        pool_size=settings.primary_pool_size,
        max_overflow=settings.primary_max_overflow,
        pool_timeout=settings.primary_pool_timeout,
    )
    ping_when_idle(engine.sync_engine)
    return PrimaryEngine(engine.sync_engine)


def create_replica_engine(settings: ReplicationSettings, primary: PrimaryEngine) -> ReplicaEngine:
    """Return the engine that stands for all replicas; nothing is connected yet.

    Args:
        settings: the replicas and their pools.
        primary: serves the reads when there are no replicas.

    """
    policy = EscalationPolicy(primary=primary, on_write=settings.on_write)
    members = []
    for replica in settings.servers:
        member_engine = _create_member_engine(settings, replica, policy)
        members.append(
            Member(
                name=replica.label,
                engine=member_engine,
                weight=replica.weight,
                groups=frozenset(replica.groups),
                health=member_engine.health,
            )
        )
    fleet = Fleet(members=members, primary=primary)
    engine = create_async_engine(
        # Only the kind of database is read from this URL: the members have the addresses.
        settings.primary,
        isolation_level=settings.read_isolation,
        logging_name="replicas",
        pool=FleetPool(fleet),
    )
    return ReplicaEngine(engine.sync_engine, policy=policy, isolation=settings.read_isolation, fleet=fleet)


def _create_member_engine(settings: ReplicationSettings, replica: Replica, policy: EscalationPolicy) -> ReplicaEngine:
    engine = create_async_engine(
        replica.url,
        connect_args=_connect_args(settings, role="replica"),
        # Set on the engine it costs nothing; chosen for each checkout it costs 50 µs.
        isolation_level=settings.read_isolation,
        logging_name=replica.label,
        pool_size=settings.replica_pool_size,
        max_overflow=settings.replica_max_overflow,
        pool_timeout=settings.replica_pool_timeout,
    )
    return ReplicaEngine(engine.sync_engine, policy=policy, isolation=settings.read_isolation)


def _connect_args(settings: ReplicationSettings, *, role: str) -> dict[str, typing.Any]:
    return {
        "server_settings": {"application_name": f"{settings.application_name}-{role}"},
        "timeout": settings.connect_timeout,
    }

"""The engines of the two roles, as types of their own."""

import functools
import time
import typing

from sqlalchemy import URL, Dialect, Engine, ExceptionContext, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from modern_di_replicas.client import client_of_request
from modern_di_replicas.cluster.arrivals import refuse_setbacks, refuse_standbys
from modern_di_replicas.cluster.catching_up import FreshRead
from modern_di_replicas.cluster.connections import OpenConnections
from modern_di_replicas.cluster.escalation import EscalationPolicy
from modern_di_replicas.cluster.failures import REFUSED_WRITE
from modern_di_replicas.cluster.fence import Fence, FencedPool
from modern_di_replicas.cluster.fleet import Fleet, Member
from modern_di_replicas.cluster.health import Health
from modern_di_replicas.cluster.idle import ping_when_idle
from modern_di_replicas.cluster.patient import PatientEngine
from modern_di_replicas.cluster.pool import FleetPool
from modern_di_replicas.cluster.reading import SessionReads
from modern_di_replicas.cluster.writes import Writes
from modern_di_replicas.consistency import SESSION, STRONG, Bounded, Consistency
from modern_di_replicas.intent import Intent
from modern_di_replicas.lsn import ConsistencyToken
from modern_di_replicas.routing.balancing import STRATEGIES
from modern_di_replicas.routing.positions import Freshness
from modern_di_replicas.settings import Replica, ReplicationSettings


class PrimaryEngine(AsyncEngine):
    """The engine of the primary, whoever that is: `follow` moves it to another server.

    Args:
        sync_engine: connects to the primary as it was declared.
        writes: notices the commits on it; default: nobody does.

    """

    def __init__(self, sync_engine: Engine, *, writes: Writes | None = None) -> None:
        super().__init__(sync_engine)
        self.writes = writes
        self._connections = OpenConnections(sync_engine)
        self._moved_to: URL | None = None
        self._fence = Fence()
        if isinstance(sync_engine.pool, FencedPool):
            sync_engine.pool.fence = self._fence
        event.listen(sync_engine, "do_connect", self._redirect)
        event.listen(sync_engine, "handle_error", _leave_former_primary)

    async def follow(self, url: str) -> None:
        """Connect to another server from now on, and end every connection to the former primary.

        A transaction under way fails: nothing may be written to a server that is not the primary any more.
        """
        self._moved_to = make_url(url)
        if self._fence.is_up:
            self._fence.take_down()  # nobody got through, so there is no connection to end
        else:
            await self._end_connections()

    @property
    def is_fenced(self) -> bool:
        """Whether it connects to nobody, because the primary it knows is a former one."""
        return self._fence.is_up

    async def fence(self, *, patience: float) -> None:
        """Connect to nobody until `follow` names a primary, and end every connection: the server is a former one.

        Args:
            patience: for how many seconds from now who comes for a connection is held up, and not refused.

        """
        if not self._fence.is_up:
            self._fence.put_up(patience)
            await self._end_connections()

    async def _end_connections(self) -> None:
        self._connections.terminate()
        # They are closed: to close them once more would give somebody time to come for one.
        await self.dispose(close=False)

    # The signature is the event's.
    def _redirect(
        self,
        dialect: Dialect,
        record: object,  # noqa: ARG002
        cargs: object,  # noqa: ARG002
        cparams: dict[str, typing.Any],
    ) -> None:
        self._fence.check()  # for who was in a queue already when it was put up
        if self._moved_to is not None:
            _, there = dialect.create_connect_args(self._moved_to)
            for name in ("host", "port", "user", "password"):
                cparams.pop(name, None)
            cparams.update(there)


def _leave_former_primary(context: ExceptionContext) -> None:
    # A primary that became a standby keeps its connections open, and refuses writes on them. As a disconnect, this
    # makes the pool connect again, to whoever is the primary then.
    if getattr(context.original_exception, "sqlstate", None) == REFUSED_WRITE:
        context.is_disconnect = True


class ReplicaEngine(AsyncEngine):
    """The engine of all replicas, or of one of them.

    The one that `create_replica_engine` returns stands for all: each checkout comes from a replica that serves, and
    from the primary when there is none. `choose()` gives the engine of one replica, so that a unit of work stays
    where it began.
    """

    def __init__(
        self,
        sync_engine: Engine,
        *,
        settings: ReplicationSettings,
        policy: EscalationPolicy,
        fleet: Fleet | None = None,
        variant_of: "ReplicaEngine | None" = None,
    ) -> None:
        super().__init__(sync_engine)
        self.settings = settings
        self.policy = policy
        """What happens when a unit of work leaves its replica."""
        self.fleet = fleet
        """The replicas this engine stands for; None for the engine of one replica."""
        # What belongs to the replica itself: made anew for each variant, the listeners of both would pile up.
        self.reads: SessionReads = (
            variant_of.reads if variant_of else SessionReads(sync_engine, isolation=settings.read_isolation)
        )
        """How sessions read."""
        self.health: Health = variant_of.health if variant_of else Health(OpenConnections(sync_engine))
        """Whether this replica is worth trying."""
        self.options: dict[str, typing.Any] = {}
        """What `execution_options()` was given; it goes along when a unit of work moves to the primary."""

    @functools.cached_property
    def streaming(self) -> Engine:
        """The engine on which sessions read rows one by one: a server-side cursor lives in a transaction."""
        if not self.reads.autocommit:
            return self.sync_engine
        return self.sync_engine.execution_options(isolation_level="READ COMMITTED", postgresql_readonly=True)

    @property
    def label(self) -> str:
        """The name of the replica, or what stands for all."""
        return self.sync_engine.logging_name or "replicas"

    def choose_for(self, intent: Intent) -> AsyncEngine:
        """Return the engine for a read that was declared; see `choose`."""
        return self.choose(intent.group, affinity=intent.affinity, consistency=intent.consistency, after=intent.after)

    def choose(
        self,
        group: str | None = None,
        *,
        affinity: str | None = None,
        consistency: Consistency | None = None,
        after: ConsistencyToken | None = None,
    ) -> AsyncEngine:
        """Return the engine of one replica for one unit of work, or the primary's when no replica can serve it.

        The engine of one replica chooses itself. Where no replica is known to be fresh enough, the engine is a
        `PatientEngine`: the primary's, with which a session asks the replicas once more.

        Args:
            group: the group the replica has to belong to.
            affinity: the same key gets the same replica, as long as that one serves.
            consistency: how fresh the replica has to be; default: that of the settings.
            after: what the replica has to include; with SESSION, what the client of the current request has written
                as well.

        Raises:
            UnknownGroupError: no replica is declared for `group`.
            NoReplicaAvailable: no replica can serve it, and the settings say `primary_reads=False`.

        """
        if self.fleet is None:
            return self
        level = consistency or self.settings.consistency
        client = client_of_request() if level is SESSION else None
        own = None if client is None else client.token
        if level is STRONG or (client is not None and client.is_unsure):
            self.fleet.check_group(group)
            chosen = self.fleet.primary
        elif after is None and own is None and not isinstance(level, Bounded):
            chosen = self.fleet.choose(group, affinity=affinity)
        else:
            max_age = level.lag.total_seconds() if isinstance(level, Bounded) else None
            freshness = Freshness(after=tuple(filter(None, (after, own))), max_age=max_age)
            chosen = self._choose_fresh(self.fleet, freshness, group, affinity)
        return chosen.execution_options(**self.options) if self.options else chosen

    def execution_options(self, **options: typing.Any) -> "ReplicaEngine":
        """Return the same replicas with other execution options; see `AsyncEngine.execution_options`."""
        optioned = ReplicaEngine(
            self.sync_engine.execution_options(**options),
            settings=self.settings,
            policy=self.policy,
            fleet=self.fleet,
            variant_of=self,
        )
        optioned.options = {**self.options, **options}
        return optioned

    def _choose_fresh(self, fleet: Fleet, freshness: Freshness, group: str | None, affinity: str | None) -> AsyncEngine:
        required = fleet.positions.required(freshness, now=time.monotonic())
        member = None if required is None else fleet.choose_member(group, affinity=affinity, lsn=required)
        if member is not None:
            return member.engine
        candidate = fleet.choose_member(group, affinity=affinity)
        if candidate is None or fleet.watcher is None or not isinstance(fleet.primary, AsyncEngine):
            return fleet.without_replica(group)
        read = FreshRead(
            fleet=fleet,
            freshness=freshness,
            first=candidate.name,
            group=group,
            affinity=affinity,
            wait=self.settings.catch_up_wait,
        )
        return PatientEngine(fleet.primary.sync_engine, candidate=candidate.engine, read=read)

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
        poolclass=FencedPool,
        pool_size=settings.primary_pool_size,
        max_overflow=settings.primary_max_overflow,
        pool_timeout=settings.primary_pool_timeout,
    )
    ping_when_idle(engine.sync_engine)
    if settings.replicas:
        refuse_standbys(engine.sync_engine)
    # Without replicas, or without anything that carries a token, nobody would ask what was written.
    notices_writes = settings.replicas and settings.token_carrier is not None
    return PrimaryEngine(engine.sync_engine, writes=Writes(engine.sync_engine) if notices_writes else None)


def create_replica_engine(settings: ReplicationSettings, primary: PrimaryEngine) -> ReplicaEngine:
    """Return the engine that stands for all replicas; nothing is connected yet.

    Args:
        settings: the replicas and their pools.
        primary: serves the reads when there are no replicas.

    """
    policy = EscalationPolicy(
        primary=primary, on_write=settings.on_write, primary_reads=settings.primary_reads or not settings.replicas
    )
    # The declared primary is one of the members: after a switchover it is a standby like the others.
    declared = [(replica, False) for replica in settings.servers]
    reserve = Replica(settings.primary, name=_name_of_primary(settings))
    members = [
        _create_member(settings, replica, policy, reserve=is_reserve)
        for replica, is_reserve in [(reserve, True), *declared]
    ]
    balancing = settings.balancing
    fleet = Fleet(
        members=members,
        primary=primary,
        balancer=STRATEGIES[balancing]() if isinstance(balancing, str) else balancing(),
        primary_reads=settings.primary_reads,
        writes=primary.writes if isinstance(primary, PrimaryEngine) else None,
    )
    for member in members:
        refuse_setbacks(member.engine.sync_engine, functools.partial(fleet.furthest, member.name))
    engine = create_async_engine(
        # Only the kind of database is read from this URL: the members have the addresses.
        settings.primary,
        isolation_level=settings.read_isolation,
        logging_name="replicas",
        pool=FleetPool(fleet),
    )
    return ReplicaEngine(engine.sync_engine, settings=settings, policy=policy, fleet=fleet)


def _name_of_primary(settings: ReplicationSettings) -> str:
    label = Replica(settings.primary).label
    # In development one server may be both.
    return f"{label} (primary)" if label in {replica.label for replica in settings.servers} else label


def _create_member(
    settings: ReplicationSettings, replica: Replica, policy: EscalationPolicy, *, reserve: bool
) -> Member:
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
    member_engine = ReplicaEngine(engine.sync_engine, settings=settings, policy=policy)
    max_lag = settings.max_lag if replica.max_lag is None else replica.max_lag
    return Member(
        name=replica.label,
        url=replica.url,
        engine=member_engine,
        health=member_engine.health,
        weight=replica.weight,
        groups=frozenset(replica.groups),
        max_lag=None if max_lag is None else max_lag.total_seconds(),
        capacity=settings.replica_pool_size + settings.replica_max_overflow,
        reserve=reserve,
    )


def _connect_args(settings: ReplicationSettings, *, role: str) -> dict[str, typing.Any]:
    timeout = settings.connect_timeout
    if role == "replica":
        # What the monitor would call down is not worth a longer wait: the primary is there.
        timeout = min(timeout, settings.probe_timeout)
    return {"server_settings": {"application_name": f"{settings.application_name}-{role}"}, "timeout": timeout}

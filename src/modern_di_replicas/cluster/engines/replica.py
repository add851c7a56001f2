"""The engine of all replicas, or of one of them."""

import asyncio
import functools
import typing

from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine

from modern_di_replicas.cluster.engines.catch_up import CatchUpEngine
from modern_di_replicas.cluster.engines.read_connections import SessionReads
from modern_di_replicas.cluster.escalation import EscalationPolicy
from modern_di_replicas.cluster.freshness import FreshRead
from modern_di_replicas.cluster.health import Health
from modern_di_replicas.cluster.pools.open_connections import OpenConnections
from modern_di_replicas.cluster.topology import Topology
from modern_di_replicas.consistency.client import client_of_request
from modern_di_replicas.consistency.levels import SESSION, STRONG, Bounded, Consistency
from modern_di_replicas.consistency.token import ConsistencyToken
from modern_di_replicas.intent import Intent
from modern_di_replicas.routing.positions import Freshness
from modern_di_replicas.routing.snapshot import Snapshot
from modern_di_replicas.settings import ReplicationSettings


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
        topology: Topology | None = None,
        variant_of: "ReplicaEngine | None" = None,
    ) -> None:
        super().__init__(sync_engine)
        self.settings = settings
        self.policy = policy
        """What happens when a unit of work leaves its replica."""
        self.topology = topology
        """The replicas this engine stands for; None for the engine of one replica."""
        # What belongs to the replica itself: made anew for each variant, the listeners of both would pile up.
        self.reads: SessionReads = (
            variant_of.reads if variant_of else SessionReads(sync_engine, isolation=settings.read_isolation)
        )
        """How sessions read."""
        self.connections: OpenConnections = variant_of.connections if variant_of else OpenConnections(sync_engine)
        """Those that are open, to end them."""
        self.health: Health = variant_of.health if variant_of else Health(self.connections)
        """Whether this replica is worth trying."""
        if variant_of is None:
            event.listen(sync_engine, "do_connect", self._check_health)
        self.options: dict[str, typing.Any] = {}
        """What `execution_options()` was given; it goes along when a unit of work moves to the primary."""

    @functools.cached_property
    def streaming(self) -> Engine:
        """The engine on which sessions read rows one by one: a server-side cursor lives in a transaction."""
        if not self.reads.autocommit:
            return self.sync_engine
        return self.sync_engine.execution_options(isolation_level="READ COMMITTED", postgresql_readonly=True)

    @property
    def snapshot(self) -> Snapshot | None:
        """What the monitor knows of every server; None while no monitor runs."""
        return None if self.topology is None else self.topology.snapshot

    def _check_health(self, *_: object) -> None:
        self.health.check()

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
        `CatchUpEngine`: the primary's, with which a session asks the replicas once more.

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
        if self.topology is None:
            return self
        level = consistency or self.settings.consistency
        client = client_of_request() if level is SESSION else None
        own = None if client is None else client.token
        if level is STRONG or (client is not None and client.position_unknown):
            self.topology.check_group(group)
            chosen = self.topology.primary
        elif after is None and own is None and not isinstance(level, Bounded):
            chosen = self.topology.choose(group, affinity=affinity)
        else:
            max_age = level.lag.total_seconds() if isinstance(level, Bounded) else None
            freshness = Freshness(after=tuple(filter(None, (after, own))), max_age=max_age)
            chosen = self._choose_fresh(self.topology, freshness, group, affinity)
        return chosen.execution_options(**self.options) if self.options else chosen

    def execution_options(self, **options: typing.Any) -> "ReplicaEngine":
        """Return the same replicas with other execution options; see `AsyncEngine.execution_options`."""
        optioned = ReplicaEngine(
            self.sync_engine.execution_options(**options),
            settings=self.settings,
            policy=self.policy,
            topology=self.topology,
            variant_of=self,
        )
        optioned.options = {**self.options, **options}
        return optioned

    def _choose_fresh(
        self, topology: Topology, freshness: Freshness, group: str | None, affinity: str | None
    ) -> AsyncEngine:
        read = FreshRead(
            topology=topology, freshness=freshness, group=group, affinity=affinity, wait=self.settings.catch_up_wait
        )
        if (server := read.choose_server()) is not None:
            return server.engine
        candidate = topology.choose_server(group, affinity=affinity)
        if candidate is None or topology.watcher is None or not isinstance(topology.primary, AsyncEngine):
            return topology.without_replica(group)
        return CatchUpEngine(topology.primary.sync_engine, candidate=candidate, read=read)

    async def dispose(self, close: bool = True) -> None:  # noqa: FBT001, FBT002  # the signature of AsyncEngine
        """Close the pooled connections of every replica; see `AsyncEngine.dispose`."""
        servers = self.topology.servers if self.topology else ()
        await asyncio.gather(*(server.engine.dispose(close) for server in servers))
        await self.connections.closed(super().dispose(close))

"""The engine of one replica, on which a unit of work reads."""

import copy
import functools
import typing

from sqlalchemy import Dialect, Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine

from modern_di_replicas.cluster.engines.read_connections import SessionReads
from modern_di_replicas.cluster.engines.replica import ReplicaEngine, ReplicaRole
from modern_di_replicas.cluster.escalation import EscalationPolicy
from modern_di_replicas.cluster.health import Health
from modern_di_replicas.cluster.pools.open_connections import OpenConnections
from modern_di_replicas.cluster.topology import Topology
from modern_di_replicas.cluster.waiting import find_names
from modern_di_replicas.intent import Intent
from modern_di_replicas.routing.decision import Cause, Decision
from modern_di_replicas.settings import ReadIsolation, ReplicationSettings


class OneReplicaRole(ReplicaRole):
    """The engine of one replica in both halves: `ReplicaEngine.choose()` returns it; its own returns itself."""

    isolation: ReadIsolation
    """The isolation of reads, unless a unit of work asks for another."""
    reads: SessionReads
    """How sessions read."""
    connections: OpenConnections
    """Its open connections."""
    health: Health
    """Whether this replica is up."""
    decision: Decision
    """Why a unit of work uses this engine."""
    _autocommits: bool

    def _serve_one(self, *, isolation: ReadIsolation, autocommits: bool) -> None:
        """Complete the set-up of a replica's engine; called after `_serve`."""
        sync_engine = self.sync_engine
        self.isolation = isolation
        self._autocommits = autocommits
        # First, because it may set up the dialect, whose methods the next one wraps.
        self.connections = OpenConnections(sync_engine)
        self.reads = SessionReads(sync_engine, isolation=isolation)
        self.health = Health(self.connections, server=self.label, hooks=self.topology.hooks)
        self.decision = Decision(server=self.label, cause=Cause.REPLICA, reason="")
        event.listen(sync_engine, "do_connect", self._check_health)

    # The signature is the event's.
    def _check_health(self, dialect: Dialect, record: object, cargs: object, cparams: dict[str, typing.Any]) -> None:  # noqa: ARG002
        self.health.check()
        find_names(dialect, cparams.get("host"), timeout=cparams["timeout"])

    @functools.cached_property
    def streaming(self) -> Engine:
        """The engine on which sessions in autocommit read rows one by one: a server-side cursor needs a transaction."""
        return self.sync_engine.execution_options(isolation_level="READ COMMITTED", postgresql_readonly=True)

    @functools.cached_property
    def _isolated(self) -> dict[ReadIsolation, Engine]:
        return {self.isolation: self.sync_engine}

    def isolation_of(self, intent: Intent) -> ReadIsolation:
        """Return the isolation of a unit of work's reads: the requested one, if that is safe."""
        asked = intent.isolation
        return self.isolation if asked is None or (asked == "AUTOCOMMIT" and not self._autocommits) else asked

    def isolated(self, isolation: ReadIsolation) -> Engine:
        """Return the engine on which a unit of work reads that asks for an isolation."""
        if isolation not in self._isolated:
            self._isolated[isolation] = self.sync_engine.execution_options(isolation_level=isolation)
        return self._isolated[isolation]

    def choose_for(self, intent: Intent) -> typing.Any:  # noqa: ANN401, ARG002  # the signature of ReplicaRole
        """Return this engine: the replica is chosen already."""
        return self

    def take_options(self, options: dict[str, typing.Any]) -> None:
        self.options = {**self.options, **options}
        for name in ("streaming", "_isolated"):  # they have the options of the engine it was made from
            vars(self).pop(name, None)


class OneReplicaEngine(OneReplicaRole, ReplicaEngine):
    """See `OneReplicaRole`."""

    def __init__(  # noqa: PLR0913  # each is one keyword
        self,
        sync_engine: Engine,
        *,
        settings: ReplicationSettings,
        policy: EscalationPolicy,
        topology: Topology,
        isolation: ReadIsolation,
        autocommits: bool,
    ) -> None:
        super().__init__(sync_engine, settings=settings, policy=policy, topology=topology)
        self._serve_one(isolation=isolation, autocommits=autocommits)

    def execution_options(self, **options: typing.Any) -> typing.Self:
        """Return the same replica with other execution options; see `AsyncEngine.execution_options`."""
        optioned = copy.copy(self)
        AsyncEngine.__init__(optioned, self.sync_engine.execution_options(**options))
        optioned.take_options(options)
        return optioned

    def update_execution_options(self, **options: typing.Any) -> None:
        """Change the execution options of its connections; see `AsyncEngine.update_execution_options`."""
        AsyncEngine.update_execution_options(self, **options)
        self.take_options(options)

    async def dispose(self, close: bool = True) -> None:  # noqa: FBT001, FBT002  # the signature of AsyncEngine
        """Close the pooled connections; see `AsyncEngine.dispose`."""
        await self.connections.closed(AsyncEngine.dispose(self, close))

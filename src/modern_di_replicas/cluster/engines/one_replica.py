"""The engine of one replica, on which a unit of work reads."""

import copy
import functools
import typing

from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

from modern_di_replicas.cluster.engines.read_connections import SessionReads
from modern_di_replicas.cluster.engines.replica import ReplicaEngine
from modern_di_replicas.cluster.escalation import EscalationPolicy
from modern_di_replicas.cluster.failures import Failure, blame
from modern_di_replicas.cluster.health import Health
from modern_di_replicas.cluster.names import names
from modern_di_replicas.cluster.pools.open_connections import OpenConnections
from modern_di_replicas.cluster.topology import Topology
from modern_di_replicas.intent import Intent
from modern_di_replicas.routing.decision import Cause, Decision
from modern_di_replicas.settings import ReadIsolation, ReplicationSettings


class OneReplicaEngine(ReplicaEngine):
    """The engine of one replica: `ReplicaEngine.choose()` returns it, and it chooses itself."""

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
        self.isolation = isolation
        """What it is read in, unless a unit of work asks for another."""
        self._autocommits = autocommits
        self.reads = SessionReads(sync_engine, isolation=isolation)
        """How sessions read."""
        self.connections = OpenConnections(sync_engine)
        """Those that are open, to end them."""
        self.health = Health(self.connections, server=self.label, hooks=topology.hooks)
        """Whether this replica is worth trying."""
        self.decision = Decision(server=self.label, cause=Cause.REPLICA, reason="")
        """Why a unit of work uses this engine."""
        event.listen(sync_engine, "do_connect", self._check_health)

    # The signature is the event's.
    def _check_health(self, dialect: object, record: object, cargs: object, cparams: dict[str, typing.Any]) -> None:  # noqa: ARG002
        self.health.check()
        try:
            await_only(names.find(cparams.get("host"), timeout=cparams["timeout"]))
        except OSError as error:
            blame(error, Failure.DOWN)
            raise

    @functools.cached_property
    def streaming(self) -> Engine:
        """The engine on which sessions in autocommit read rows one by one: a server-side cursor needs a transaction."""
        return self.sync_engine.execution_options(isolation_level="READ COMMITTED", postgresql_readonly=True)

    @functools.cached_property
    def _isolated(self) -> dict[ReadIsolation, Engine]:
        return {self.isolation: self.sync_engine}

    def isolation_of(self, intent: Intent) -> ReadIsolation:
        """Return the isolation in which a unit of work reads: what it asks for, where that is safe."""
        asked = intent.isolation
        return self.isolation if asked is None or (asked == "AUTOCOMMIT" and not self._autocommits) else asked

    def isolated(self, isolation: ReadIsolation) -> Engine:
        """Return the engine on which a unit of work reads that asks for an isolation."""
        if isolation not in self._isolated:
            self._isolated[isolation] = self.sync_engine.execution_options(isolation_level=isolation)
        return self._isolated[isolation]

    def choose_for(self, intent: Intent) -> AsyncEngine:  # noqa: ARG002  # the signature of ReplicaEngine
        """Return this engine: the choice was made."""
        return self

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

    def take_options(self, options: dict[str, typing.Any]) -> None:
        self.options = {**self.options, **options}
        vars(self).pop("streaming", None)  # it has the options of the engine it was made from

    async def dispose(self, close: bool = True) -> None:  # noqa: FBT001, FBT002  # the signature of AsyncEngine
        """Close the pooled connections; see `AsyncEngine.dispose`."""
        await self.connections.closed(AsyncEngine.dispose(self, close))

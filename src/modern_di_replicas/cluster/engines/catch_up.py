"""The engine of a unit of work that asks for more than any replica is known to have."""

import time
import typing

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from modern_di_replicas.cluster.freshness import FreshRead, catch_up
from modern_di_replicas.cluster.topology import Server
from modern_di_replicas.observability.events import CaughtUp, Decided
from modern_di_replicas.routing.decision import Cause, Decision, decision_of, on_primary


class CatchUpEngine(AsyncEngine):
    """The primary's engine, where no replica is known to be fresh enough: used as it is, it reads there.

    A session asks the candidate at its first statement, then all replicas, and reads from the first that has caught up.

    Args:
        primary: the engine of the primary.
        candidate: a replica that would serve, were it fresh enough.
        read: what the unit of work asks for.
        options: execution options for whichever server it is in the end.

    """

    def __init__(
        self,
        primary: Engine,
        *,
        candidate: Server,
        read: FreshRead,
        options: dict[str, typing.Any] | None = None,
    ) -> None:
        super().__init__(primary)
        self.read = read
        self.decision = on_primary(Cause.NOT_FRESH, f"no replica has {read.freshness} yet")
        """Why a unit of work uses this engine, as long as no replica has caught up."""
        self._candidate = candidate
        self._options = options or {}

    @property
    def candidate(self) -> AsyncEngine:
        """The engine of the candidate."""
        return self._engine_of(self._candidate)

    def execution_options(self, **options: typing.Any) -> "CatchUpEngine":
        """Return the same with other execution options; see `AsyncEngine.execution_options`."""
        return CatchUpEngine(
            self.sync_engine.execution_options(**options),
            candidate=self._candidate,
            read=self.read,
            options={**self._options, **options},
        )

    def connect(self) -> AsyncConnection:
        """Return a connection to the primary; see `AsyncEngine.connect`.

        Raises:
            NoReplicaAvailable: the settings say `primary_reads=False`.

        """
        self.read.topology.without_replica(self.read.group)
        self._announce(self.decision)
        return super().connect()

    async def catch_up(self) -> AsyncEngine | None:
        """Return the engine of a replica that has caught up; None when none has in time, and the primary is to read.

        Raises:
            NoReplicaAvailable: none has, and the settings say `primary_reads=False`.

        """
        read, began = self.read, time.monotonic()
        server = await catch_up(read, first=self._candidate.name)
        if (hooks := read.topology.hooks) is not None:
            name = None if server is None else server.name
            hooks.emit(CaughtUp(server=name, seconds=time.monotonic() - began, endpoint=read.endpoint))
        if server is None:
            read.topology.without_replica(read.group)
            self._announce(self.decision)
            return None
        self._announce(decision_of(server.engine))
        return self._engine_of(server)

    def _announce(self, decision: Decision) -> None:
        if (hooks := self.read.topology.hooks) is not None:
            hooks.emit(Decided(decision=decision, endpoint=self.read.endpoint))

    def _engine_of(self, server: Server) -> AsyncEngine:
        return server.engine.execution_options(**self._options) if self._options else server.engine

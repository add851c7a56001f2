"""The engine of a unit of work for which no replica is known to be fresh enough."""

import collections.abc
import time
import typing

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from modern_di_replicas.cluster.engines.either import AnyEngine, Role
from modern_di_replicas.cluster.freshness import FreshRead, catch_up
from modern_di_replicas.cluster.server import Server
from modern_di_replicas.observability.events import CaughtUp, Decided
from modern_di_replicas.routing.decision import Cause, Decision, decision_of, on_primary


OneWithOptions = collections.abc.Callable[[typing.Any], typing.Any]
"""Returns the engine of one replica with the options of another engine; both are of one half."""


class CatchUpRole(Role):
    """The primary's engine, where no replica is known to be fresh enough: Core on it reads the primary.

    A session asks the candidate at its first statement, then all replicas, and reads from the first that has caught up.
    """

    read: FreshRead
    """The freshness that the unit of work asks for."""
    decision: Decision
    """Why a unit of work uses this engine, as long as no replica has caught up."""
    _candidate: Server
    _with_options: OneWithOptions

    def _serve(self, *, candidate: Server, read: FreshRead, with_options: OneWithOptions | None) -> None:
        self.read = read
        self.decision = on_primary(Cause.NOT_FRESH, f"no replica has {read.freshness} yet")
        self._candidate = candidate
        self._with_options = with_options or without_options

    @property
    def candidate(self) -> typing.Any:  # noqa: ANN401  # an engine of the same half
        """The engine of the candidate."""
        return self._with_options(self._candidate.engine)

    def execution_options(self, **options: typing.Any) -> typing.Self:
        """Return the same with other execution options; see `Engine.execution_options`."""
        return self.with_options(options, lambda one: self._with_options(one).execution_options(**options))

    def with_options(self, options: dict[str, typing.Any], one_with_options: OneWithOptions) -> typing.Self:
        """Return the same with other execution options, where `one_with_options` gives them to a replica's engine."""
        make = typing.cast(typing.Any, type(self))
        optioned: typing.Self = make(
            self.sync_engine.execution_options(**options),
            candidate=self._candidate,
            read=self.read,
            with_options=one_with_options,
        )
        return optioned

    def _check_connect(self) -> None:
        """Check that the primary may serve the read, and emit the decision."""
        self.read.topology.without_replica(self.read.group)
        self._announce(self.decision)

    async def catch_up(self) -> typing.Any:  # noqa: ANN401
        """Return the engine of a replica that has caught up; None when none has in time, and the primary is to read.

        Behind a name that leads to several servers, a session has to ask on its own connection whether it has.

        Raises:
            NoReplicaAvailable: none has, and the settings say `primary_reads=False`.

        """
        read, began = self.read, time.monotonic()
        if read.topology.leads_to_several(self._candidate.name):
            # The next connection may lead to another server: the session asks on its own.
            self._announce(decision_of(self._candidate.engine))
            return self.candidate
        server = await catch_up(read, first=self._candidate.name)
        if (hooks := read.topology.hooks) is not None:
            name = None if server is None else server.name
            hooks.emit(CaughtUp(server=name, seconds=time.monotonic() - began, endpoint=read.endpoint))
        if server is None:
            read.topology.without_replica(read.group)
            self._announce(self.decision)
            return None
        self._announce(decision_of(server.engine))
        return self._with_options(server.engine)

    def _announce(self, decision: Decision) -> None:
        if (hooks := self.read.topology.hooks) is not None:
            hooks.emit(Decided(decision=decision, endpoint=self.read.endpoint))


class CatchUpEngine(CatchUpRole, AsyncEngine):
    """See `CatchUpRole`.

    Args:
        primary: the engine of the primary.
        candidate: a replica that serves once it is fresh enough.
        read: the freshness that the unit of work asks for.
        with_options: returns the engine of one replica with the execution options that this one has.

    """

    def __init__(
        self,
        primary: Engine,
        *,
        candidate: Server,
        read: FreshRead,
        with_options: OneWithOptions | None = None,
    ) -> None:
        super().__init__(primary)
        self._serve(candidate=candidate, read=read, with_options=with_options)

    def connect(self) -> AsyncConnection:
        """Return a connection to the primary; see `AsyncEngine.connect`.

        Raises:
            NoReplicaAvailable: the settings say `primary_reads=False`.

        """
        self._check_connect()
        return super().connect()


def without_options(one: AnyEngine) -> AnyEngine:
    """Return the engine of one replica without further options."""
    return one

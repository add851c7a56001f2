"""The engine of the primary, which may change."""

import abc
import collections.abc
import copy
import typing

from sqlalchemy import URL, Dialect, Engine, ExceptionContext, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from modern_di_replicas.cluster.commits import Writes
from modern_di_replicas.cluster.engines.either import Role
from modern_di_replicas.cluster.failures import REFUSED_WRITE
from modern_di_replicas.cluster.pools.attribution import attribute_checkouts
from modern_di_replicas.cluster.pools.fence import Fence
from modern_di_replicas.cluster.pools.fenced import FencedQueuePool
from modern_di_replicas.cluster.pools.open_connections import OpenConnections
from modern_di_replicas.cluster.pools.outage import Outage
from modern_di_replicas.cluster.pools.replaceable import ReplaceableQueuePool
from modern_di_replicas.cluster.waiting import find_names
from modern_di_replicas.drivers.known import driver_of
from modern_di_replicas.observability.emission import Hooks
from modern_di_replicas.routing.decision import Cause, Decision, on_primary


_NAME_TIMEOUT: typing.Final = 5.0
"""Timeout in seconds for looking up a name, on an engine that the application made without a timeout."""


class PrimaryRole(Role):
    """The engine of the primary in both halves: `follow` moves it to another server."""

    decision: Decision
    """Why a unit of work uses this engine."""
    writes: Writes | None
    """Records the commits on it; None: none are recorded."""
    hooks: Hooks | None
    """Receive the events; None where there are none."""
    _connections: OpenConnections
    _connect_args: collections.abc.Mapping[str, typing.Any]
    _trial_timeout: float
    _moved_to: URL | None
    _fence: Fence
    _outage: Outage

    def _serve(
        self,
        *,
        writes: Writes | None,
        connect_args: collections.abc.Mapping[str, typing.Any] | None,
        hooks: Hooks | None,
    ) -> None:
        """Complete the set-up of the primary's engine; called once `sync_engine` is set."""
        sync_engine = self.sync_engine
        self.decision = on_primary(Cause.WRITE, "")
        self.writes = writes
        self.hooks = hooks
        self._connections = OpenConnections(sync_engine)
        attribute_checkouts(sync_engine)
        self._connect_args = connect_args or {}
        self._trial_timeout = 0.0
        self._moved_to: URL | None = None
        self._fence = Fence()
        self._outage = Outage(driver_of(sync_engine).lost_connection)
        if isinstance(sync_engine.pool, FencedQueuePool):
            sync_engine.pool.fence, sync_engine.pool.outage = self._fence, self._outage
        event.listen(sync_engine, "do_connect", self._redirect)
        event.listen(sync_engine, "connect", self._connected)
        event.listen(sync_engine, "handle_error", _leave_former_primary)

    def follow(self, url: str, *, connect_args: collections.abc.Mapping[str, typing.Any] | None = None) -> None:
        """Connect to another server from now on, and end every connection to the former primary.

        An open transaction fails: nothing may be written to a former primary.

        Args:
            url: the server. The URL of the former primary is not used any more.
            connect_args: further arguments of the driver's `connect`; default: those that this engine has.

        """
        if connect_args is not None:
            self._connect_args = connect_args
        self._moved_to = make_url(url)
        was_fenced = self._fence.is_raised
        self._fence.lift()
        self._outage.declare_up()
        if not was_fenced:  # no connection was made behind a fence, so there is none to end
            self._end_all()

    def _end_all(self) -> None:
        self._connections.terminate()
        self._connections.opening.give_up()

    @abc.abstractmethod
    def with_decision(self, decision: Decision, sync_engine: Engine | None = None) -> typing.Self:
        """Return the same engine, which carries why it was chosen.

        Args:
            decision: why.
            sync_engine: the same with a limit; default: without.

        """

    @property
    def in_use(self) -> int:
        """How many connections are checked out."""
        pool: ReplaceableQueuePool = self.sync_engine.pool  # type: ignore[assignment]  # we made it
        return pool.in_use

    def wait_for_changes(self, seconds: float) -> None:
        """Let checkouts wait for some seconds after the primary was lost: a monitor may find another one."""
        self._outage.timeout = seconds

    def declare_down(self, *, timeout: float, reason: str = "", is_silent: bool = False) -> None:
        """Terminate every connection: the primary does not answer the monitor. Until `declare_up`, checkouts fail fast.

        Args:
            timeout: timeout in seconds of the one connection attempt that is allowed.
            reason: why, for the errors of checkouts.
            is_silent: whether it timed out, so that checkouts need not wait for it again; not that it refuses.

        """
        was_down = self._outage.is_down
        self._trial_timeout = timeout
        self._outage.declare_down(timeout=timeout, reason=reason, is_silent=is_silent)
        self.end_silent()
        if not was_down:  # later ones are the attempts that are allowed
            self._connections.opening.give_up()

    def declare_up(self) -> None:
        """Connect as usual: the primary answers the monitor."""
        self._outage.declare_up()

    def end_silent(self) -> None:
        """Terminate every connection: some are silent, and new ones work."""
        self._connections.end_silent()

    @property
    def is_fenced(self) -> bool:
        """Whether it refuses connections, because the primary it knows is a former one."""
        return self._fence.is_raised

    def fence(self, *, timeout: float) -> None:
        """Refuse connections until `follow` names a primary, and end every connection: the server is a former one.

        Args:
            timeout: seconds from now in which checkouts wait instead of failing.

        """
        if not self._fence.is_raised:
            self._fence.raise_fence(timeout)
            self._end_all()

    def _connected(self, *_: object) -> None:
        self._outage.declare_up()  # it accepts connections, whatever the monitor knows

    # The signature is the event's.
    def _redirect(
        self,
        dialect: Dialect,
        record: object,  # noqa: ARG002
        cargs: object,  # noqa: ARG002
        cparams: dict[str, typing.Any],
    ) -> None:
        self._fence.check()  # also for checkouts that were waiting when the fence was raised
        is_trial = self._outage.attempt()
        if self._moved_to is not None:
            _, of_url = dialect.create_connect_args(self._moved_to)
            cparams.clear()
            cparams.update(of_url, **self._connect_args)
            # `watch_driver` had added this to the arguments, and its checks rely on it.
            driver_of(self.sync_engine).make_reporting(cparams)
        if is_trial:
            cparams["timeout"] = self._trial_timeout  # as `Driver.connect_args` names it
        driver_of(self.sync_engine).watch_opening(cparams, self._connections.opening)
        find_names(dialect, cparams.get("host"), timeout=cparams.get("timeout", _NAME_TIMEOUT))


class PrimaryEngine(PrimaryRole, AsyncEngine):
    """The engine of the current primary: `follow` moves it to another server.

    Args:
        sync_engine: connects to the primary as it was declared.
        writes: records the commits on it; default: none are recorded.
        connect_args: arguments of the driver's `connect` besides those in the URL.
        hooks: receive the events; None where there are none.

    """

    def __init__(
        self,
        sync_engine: Engine,
        *,
        writes: Writes | None = None,
        connect_args: collections.abc.Mapping[str, typing.Any] | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        super().__init__(sync_engine)
        self._serve(writes=writes, connect_args=connect_args, hooks=hooks)

    def with_decision(self, decision: Decision, sync_engine: Engine | None = None) -> typing.Self:
        """Return the same engine, which carries why it was chosen; see `PrimaryRole.with_decision`."""
        chosen = copy.copy(self)
        if sync_engine is not None and sync_engine is not self.sync_engine:
            AsyncEngine.__init__(chosen, sync_engine)
        chosen.decision = decision
        return chosen

    def execution_options(self, **options: typing.Any) -> typing.Self:
        """Return the same engine with other execution options; see `AsyncEngine.execution_options`."""
        optioned = copy.copy(self)
        AsyncEngine.__init__(optioned, self.sync_engine.execution_options(**options))
        return optioned

    async def dispose(self, close: bool = True) -> None:  # noqa: FBT001, FBT002  # the signature of AsyncEngine
        """Close the pooled connections; see `AsyncEngine.dispose`."""
        await self._connections.closed(super().dispose(close))


def _leave_former_primary(context: ExceptionContext) -> None:
    # A primary that became a standby keeps its connections open, and refuses writes on them. Treated as a disconnect,
    # this makes the pool connect again, to the current primary. So does a closed connection that the driver does not
    # report as closed yet.
    driver, error = driver_of(typing.cast(Engine, context.engine)), context.original_exception
    if driver.sqlstate(error) == REFUSED_WRITE or driver.is_lost(error):
        context.is_disconnect = True

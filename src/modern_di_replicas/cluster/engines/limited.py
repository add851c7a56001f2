"""Protects the primary from the reads that no replica could serve: `ReplicationSettings.primary_fallback_limit`."""

import collections.abc
import functools
import typing

from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.engine.base import OptionEngine

from modern_di_replicas.cluster.pools.permits import AsyncPermits, Permits, ThreadedPermits
from modern_di_replicas.cluster.pools.replaceable import ON_RETURN, ReplaceableQueuePool
from modern_di_replicas.errors import NoReplicaAvailable
from modern_di_replicas.observability.emission import Hooks
from modern_di_replicas.observability.events import ReadRefused


class FallbackLimit:
    """Limits the reads that use the primary at once; others wait before they take a place in its pool.

    Args:
        limit: the number of reads.
        timeout: seconds that one more waits.
        hooks: receive an event for each refused read; None where there are none.

    """

    _permits_class: typing.ClassVar[type[Permits[typing.Any]]] = AsyncPermits

    def __init__(self, limit: int, *, timeout: float, hooks: Hooks | None = None) -> None:
        self._limit = limit
        self._timeout = timeout
        self._hooks = hooks
        self.forget()

    def forget(self) -> None:
        """Forget which reads use the primary: none yet, or in a forked process, those of its parent."""
        self._permits = self._permits_class(self._limit)

    def applied_to(self, primary: Engine) -> Engine:
        """Return the primary's engine for such reads; an engine with a foreign pool is not limited."""
        if isinstance(primary, LimitedEngine) or not isinstance(primary.pool, ReplaceableQueuePool):
            return primary
        return LimitedEngine(primary, {}, self)

    def take(self) -> collections.abc.Callable[[], None]:
        """Wait until one more read may use the primary; return the function to call when it has ended.

        Raises:
            NoReplicaAvailable: none may in time.

        """
        permits = self._permits
        try:
            permits.acquire(self._timeout)
        except TimeoutError:
            if self._hooks is not None:
                self._hooks.emit(ReadRefused(by="primary_fallback_limit"))
            raise NoReplicaAvailable(group=None, limit=self._limit) from None
        return functools.partial(self._release, permits)

    def _release(self, permits: Permits[typing.Any]) -> None:
        if permits is self._permits:  # otherwise its read began in the parent of this forked process
            permits.release()


class ThreadedFallbackLimit(FallbackLimit):
    """The same for the threads of a synchronous application."""

    _permits_class = ThreadedPermits


class LimitedEngine(OptionEngine):
    """The primary's engine, as `execution_options()` returns it, whose connections count."""

    def __init__(
        self, proxied: Engine, options: collections.abc.Mapping[str, typing.Any], limit: FallbackLimit
    ) -> None:
        super().__init__(proxied, options)
        self._limit = limit

    def execution_options(self, **options: typing.Any) -> "LimitedEngine":
        """Return the same engine with other execution options; see `Engine.execution_options`."""
        return LimitedEngine(self, options, self._limit)

    def raw_connection(self) -> PoolProxiedConnection:
        """Return a connection, when one more read may use the primary; see `Engine.raw_connection`."""
        release = self._limit.take()
        try:
            connection = super().raw_connection()
            typing.cast(dict[str, typing.Any], connection.record_info)[ON_RETURN] = release
        except BaseException:
            release()
            raise
        return connection

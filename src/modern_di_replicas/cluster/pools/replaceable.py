"""A pool that forwards waiting checkouts to the pool that replaced it."""

import math
import time
import typing

from sqlalchemy import AsyncAdaptedQueuePool, PoolProxiedConnection, QueuePool
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from modern_di_replicas.cluster.failures import Failure, note_failure
from modern_di_replicas.cluster.pools.permits import AsyncPermits, Permits
from modern_di_replicas.drivers.opening import TerminatedWhileOpeningError


OF_CHECKOUT: typing.Final = "modern_di_replicas.of_checkout"
"""The key in a connection's `info` of a value that is removed when the connection is returned."""

ON_RETURN: typing.Final = "modern_di_replicas.on_return"
"""The key in `record_info` of a function that is called once, when the connection is returned."""

UNLIMITED: typing.Final = -1
"""SQLAlchemy's value for an unlimited overflow."""


class ReplaceableQueuePool(QueuePool):
    """A pool that serves checkouts in their order, and opens no connections once it has been replaced.

    An engine replaces its pool when all its connections are terminated. A checkout that waits for the old pool would
    connect there, beyond the limit of the new one, and its connection would belong to no pool.

    Checkouts wait for a permit, and so never in SQLAlchemy's queue, which only keeps the idle connections. The number
    of permits is the limit of the pool.

    Args:
        creator: makes a connection; see `Pool`.
        pool_size: how many connections are kept; see `QueuePool`.
        max_overflow: how many more there may be; see `QueuePool`.
        **options: those of `QueuePool`.

    """

    _permits_class: typing.ClassVar[type[Permits[typing.Any]]]
    _successor: "ReplaceableQueuePool | None" = None

    def __init__(
        self,
        creator: typing.Any,  # noqa: ANN401  # as `QueuePool` has it
        pool_size: int = 5,
        max_overflow: int = 10,
        **options: typing.Any,
    ) -> None:
        super().__init__(creator, pool_size, UNLIMITED, **options)
        self.permits = self._permits_class(math.inf if max_overflow == UNLIMITED else pool_size + max_overflow)

    @property
    def in_use(self) -> int:
        """How many of its connections are in use; `checkedout()` would compute it from the queue for each choice."""
        return self.permits.in_use

    @property
    def waiting(self) -> int:
        """How many checkouts wait for a connection."""
        return self.permits.waiting

    def leave_to_parent(self) -> None:
        """Leave the waiting checkouts, and their lock, to the parent of this forked process."""
        self.permits = self._permits_class(self.permits.limit)

    def connect(self) -> PoolProxiedConnection:
        return self.connect_since(time.monotonic())

    def connect_since(self, began: float) -> PoolProxiedConnection:
        """Return a connection, as `connect` does.

        Args:
            began: when the checkout began, by `time.monotonic()`; maybe in the previous pool.

        """
        if self._successor is not None:
            return self._current().connect_since(began)
        try:
            return super().connect()
        except (_ReplacedError, TerminatedWhileOpeningError):
            return self._current().connect_since(began)

    def recreate(self) -> "ReplaceableQueuePool":
        successor = typing.cast(ReplaceableQueuePool, super().recreate())
        successor.permits = self._permits_class(self.permits.limit)
        self._successor = successor
        self.permits.dismiss()
        return successor

    def _current(self) -> "ReplaceableQueuePool":
        pool = self
        while pool._successor is not None:
            pool = pool._successor
        return pool

    # A subclass of `Pool` implements these:

    def _do_get(self) -> ConnectionPoolEntry:
        try:
            has_permit = self.permits.acquire(self.timeout())
        except TimeoutError:
            msg = (
                f"QueuePool limit of size {self.size()} overflow {self.overflow()} reached, connection timed out, "
                f"timeout {self.timeout():.2f}"
            )
            late = PoolTimeoutError(msg, code="3o7r")  # SQLAlchemy's text
            note_failure(late, Failure.TRANSIENT)  # busy is not down
            raise late from None
        if not has_permit:
            raise _ReplacedError
        try:
            entry = super()._do_get()
        except BaseException:
            self.permits.release()
            raise
        if self._successor is None:
            return entry
        self._do_return_conn(entry)
        raise _ReplacedError

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if record.record_info and (returned := record.record_info.pop(ON_RETURN, None)) is not None:
            returned()
        if self._successor is None:
            # Not in a listener to "checkin": with one, a session cannot be closed without awaiting.
            record.info.pop(OF_CHECKOUT, None)
        else:
            record.invalidate()  # its connection would never be checked out
        try:
            super()._do_return_conn(record)
        finally:
            self.permits.release()


class ReplaceablePool(ReplaceableQueuePool, AsyncAdaptedQueuePool):
    """The pool of an asynchronous engine."""

    _permits_class = AsyncPermits
    # SQLAlchemy names a pool's logger after its class; `_sqla_logger_namespace` overrides that, as in its own classes.
    # `tests/cluster/engines/test_create.py` fails when that changes.
    _sqla_logger_namespace = "sqlalchemy.pool.impl.AsyncAdaptedQueuePool"


class _ReplacedError(Exception):
    """A waiting checkout has to go to the successor."""

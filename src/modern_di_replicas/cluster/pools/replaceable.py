"""A pool that forwards waiting checkouts to the pool that replaced it."""

import asyncio
import threading
import time
import typing

from sqlalchemy import AsyncAdaptedQueuePool, PoolProxiedConnection, QueuePool
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from modern_di_replicas.drivers.opening import TerminatedWhileOpeningError


RETURNED: typing.Final = "modern_di_replicas.returned"
"""When a connection was last given back, in its `info`."""

OF_CHECKOUT: typing.Final = "modern_di_replicas.of_checkout"
"""The key in a connection's `info` of what is true until the connection comes back."""

ON_RETURN: typing.Final = "modern_di_replicas.on_return"
"""The key of a function in `record_info`, which is called once, when the connection comes back."""


class ReplaceableQueuePool(QueuePool):
    """A pool that makes no connection any more once it was replaced.

    An engine replaces its pool when all its connections are terminated. A checkout that waits for the old pool would
    connect there, beyond the limit of the new one, and its connection would belong to no pool.
    """

    in_use: int = 0
    """How many of its connections are in use; `checkedout()` computes it from the queue, for each choice anew."""
    _waiting: int = 0
    """How many checkouts wait for a place."""
    _counting = threading.Lock()
    """For `_waiting`: few checkouts wait at all, and one that does not takes no lock."""
    _successor: "ReplaceableQueuePool | None" = None
    _is_of_parent: bool = False
    """Whether it belongs to the process that this one was forked from, where its threads are and hold its locks."""

    def leave_to_parent(self) -> None:
        """Leave its connections, its locks and the checkouts that wait to the process that this one was forked from."""
        self._is_of_parent = True
        ReplaceableQueuePool._counting = threading.Lock()

    def connect(self) -> PoolProxiedConnection:
        return self.connect_since(time.monotonic())

    def connect_since(self, began: float) -> PoolProxiedConnection:
        """Return a connection, as `connect` does.

        Args:
            began: when the checkout began, on the clock of `time.monotonic()`; maybe in the pool before this one.

        """
        if self._successor is not None:
            return self._current().connect_since(began)
        try:
            return super().connect()
        except (_ReplacedError, TerminatedWhileOpeningError):
            return self._current().connect_since(began)

    def recreate(self) -> "ReplaceableQueuePool":
        self._successor = typing.cast(ReplaceableQueuePool, super().recreate())
        if not self._is_of_parent:
            self._wake_one()
        return self._successor

    def _wake_one(self) -> None:
        """Wake a waiting checkout, if any: it finds out itself why."""
        if not self.checkedin():
            super()._do_return_conn(typing.cast(ConnectionPoolEntry, WakeUp()))

    def _current(self) -> "ReplaceableQueuePool":
        pool = self
        while pool._successor is not None:
            pool = pool._successor
        return pool

    # What a subclass of `Pool` supplies:

    def _do_get(self) -> ConnectionPoolEntry:
        # As `QueuePool` decides it; that is not public. `tests/cluster/pools/test_replaceable.py` fails if it changes.
        waits = not self.checkedin() and self.overflow() >= self._max_overflow
        if waits:
            self._count_waiting(1)
        try:
            entry = super()._do_get()
        except BaseException as error:
            # SQLAlchemy frees the place of a connection that could not be made, and tells no checkout that waits for
            # one: all of them would wait to the end of their time.
            if self._waiting > waits and not isinstance(error, PoolTimeoutError):
                self._wake_one()
            elif isinstance(error, asyncio.CancelledError):
                self._take_wake_up_back()
            raise
        finally:
            if waits:
                self._count_waiting(-1)
        if isinstance(entry, WakeUp) and self._successor is None:
            return self._do_get()
        self.in_use += 1
        if self._successor is None:
            return entry
        self._do_return_conn(entry)  # to the next waiting checkout
        raise _ReplacedError

    def _take_wake_up_back(self) -> None:
        """Remove what woke the last waiting checkout, which was cancelled: it would count as an idle connection."""
        if self.checkedin():
            entry = super()._do_get()  # does not wait: only an asynchronous checkout can be cancelled
            if not isinstance(entry, WakeUp):
                super()._do_return_conn(entry)

    def _count_waiting(self, change: int) -> None:
        with self._counting:
            self._waiting += change

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self.in_use -= 1
        if record.record_info and (returned := record.record_info.pop(ON_RETURN, None)) is not None:
            returned()
        if self._successor is None:
            # Not in a listener to "checkin": where one has to be called, a session is not closed at once.
            info = record.info
            info[RETURNED] = time.monotonic()
            info.pop(OF_CHECKOUT, None)
        else:
            record.invalidate()  # its connection would never be checked out
        super()._do_return_conn(record)


class ReplaceablePool(ReplaceableQueuePool, AsyncAdaptedQueuePool):
    """That of an asynchronous engine."""

    # SQLAlchemy names a pool's logger after its class, so it would log under our name; `_sqla_logger_namespace` is how
    # its own classes say another. `tests/cluster/engines/test_create.py` fails when that changes.
    _sqla_logger_namespace = "sqlalchemy.pool.impl.AsyncAdaptedQueuePool"


class _ReplacedError(Exception):
    """A waiting checkout has to go to the successor."""


class WakeUp:
    """An entry without a connection: in the queue of a pool it only wakes a waiting checkout."""

    record_info = None

    def invalidate(self) -> None:
        pass

    close = invalidate

"""The open connections of one engine, so that they can be terminated without asking their server."""

import asyncio
import collections.abc
import threading
import time
import typing
import weakref

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from modern_di_replicas.cluster.pools.sockets import leave_to_parent
from modern_di_replicas.drivers.known import driver_of
from modern_di_replicas.drivers.opening import Opening, TerminatedWhileOpeningError


CLOSE_TIMEOUT: typing.Final = 1.0
"""Timeout in seconds for closing the connections of one engine."""

BURST: typing.Final = 3
"""How often in a row the connections may be terminated because their server is silent."""

REFILL: typing.Final = 5.0
"""Seconds after which that is allowed once more: each time, all connections have to be opened again."""

_BEGUN: typing.Final = "modern_di_replicas.begun"


class OpenConnections:
    """Tracks every open connection of an engine, idle or checked out.

    Args:
        engine: the engine; its pool may be replaced meanwhile.

    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._driver = driver_of(engine)
        self._driver.set_up(engine)
        self.opening = Opening()
        self._open: weakref.WeakSet[typing.Any] = weakref.WeakSet()
        self._terminations = 0
        self._lock = threading.Lock()
        """In synchronous applications connections are opened in any thread, and terminated in the monitor's."""
        self._allowance = float(BURST)
        self._allowed_at = time.monotonic()
        event.listen(engine, "do_connect", self._begun)
        # Before SQLAlchemy's own listeners: they ask the first server for its version, and a connection whose server
        # freezes meanwhile has to be known by then.
        event.listen(engine, "connect", self._opened, insert=True)

    def _begun(self, dialect: object, record: ConnectionPoolEntry, *rest: object) -> None:  # noqa: ARG002  # the event's signature
        record.info[_BEGUN] = self._terminations

    def _opened(self, connection: DBAPIConnection, record: ConnectionPoolEntry | None) -> None:
        opened = self._engine.dialect.get_driver_connection(connection)
        # Without a record it comes from an AllReplicasPool, and belongs to the pool of another engine, which checks it.
        with self._lock:
            if record is None or record.info.get(_BEGUN, self._terminations) == self._terminations:
                self._open.add(opened)
                return
        # All were terminated while it was opened, or while it waited for SQLAlchemy's first connection.
        self._driver.terminate(opened)
        raise TerminatedWhileOpeningError

    async def closed(self, closing: collections.abc.Coroutine[typing.Any, typing.Any, None]) -> None:
        """Close the pool within `CLOSE_TIMEOUT`; connections to a frozen server are terminated."""
        task = asyncio.ensure_future(closing)
        try:
            await asyncio.wait({task}, timeout=CLOSE_TIMEOUT)
        finally:
            if not task.done():
                self.terminate()
        await task

    def end_silent(self) -> None:
        """Terminate all of them because their server is silent; not more often than `BURST` and `REFILL` allow."""
        now = time.monotonic()
        self._allowance = min(BURST, self._allowance + (now - self._allowed_at) / REFILL)
        self._allowed_at = now
        if self._allowance >= 1:
            self._allowance -= 1
            self.terminate()

    def forget(self) -> None:
        """Leave all of them to the parent of this forked process: neither close nor terminate them."""
        self._lock = threading.Lock()  # another thread may have held it
        found = [self._driver.descriptor(connection) for connection in self._open]
        leave_to_parent(descriptor for descriptor in found if descriptor is not None)
        self.opening = Opening()
        self._open = weakref.WeakSet()
        self._terminations += 1
        if (leave := getattr(self._engine.pool, "leave_to_parent", None)) is not None:
            leave()
        self._engine.dispose(close=False)

    def terminate(self) -> None:
        """Terminate all of them, also those that are being opened; a statement that waits for its server fails now.

        The pool is replaced, so none of them is checked out again.
        """
        with self._lock:
            connections, self._open = list(self._open), weakref.WeakSet()
            self._terminations += 1
        for connection in connections:
            self._driver.terminate(connection)
        # They are closed already; closing them again would await, and a checkout could get one meanwhile.
        self._engine.dispose(close=False)

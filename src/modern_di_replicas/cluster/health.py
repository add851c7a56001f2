"""Whether a server is worth trying: what its users have seen of it."""

import collections.abc
import time
import typing
import weakref

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry


FIRST_REST: typing.Final = 1.0
LONGEST_REST: typing.Final = 30.0
"""Seconds a server is left alone after its first failure, and at most; doubled at each failure in a row."""


class Health:
    """Passive knowledge of one server: a failure rests it, a success forgives.

    Args:
        engine: the engine whose open connections belong to the server.
        clock: seconds that only grow.

    """

    def __init__(self, engine: Engine, *, clock: collections.abc.Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rest = 0.0
        self._resting_until = 0.0
        self._open: weakref.WeakSet[typing.Any] = weakref.WeakSet()
        event.listen(engine, "connect", self._opened)

    def _opened(self, connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:  # noqa: ARG002  # the event's signature
        self._open.add(record.driver_connection)
        if self._rest:
            self._rest = 0.0

    @property
    def is_down(self) -> bool:
        return self._resting_until > 0.0 and self._clock() < self._resting_until

    def failed(self) -> None:
        """Rest the server: somebody could not reach it, or was thrown out."""
        self._rest = min(self._rest * 2 or FIRST_REST, LONGEST_REST)
        self._resting_until = self._clock() + self._rest

    def declare_down(self) -> None:
        """Rest the server, and terminate its connections.

        A statement that waits for a frozen host fails now, and is run again on the primary.
        """
        self.failed()
        connections, self._open = list(self._open), weakref.WeakSet()
        for connection in connections:
            connection.terminate()

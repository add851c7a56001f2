"""The open connections of one engine, so that they can be ended without asking their server."""

import typing
import weakref

from sqlalchemy import AdaptedConnection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry


class OpenConnections:
    """Knows every open connection of an engine, idle or busy.

    Args:
        engine: the engine; its pool may be replaced meanwhile.

    """

    def __init__(self, engine: Engine) -> None:
        self._open: weakref.WeakSet[typing.Any] = weakref.WeakSet()
        event.listen(engine, "connect", self._opened)

    def _opened(self, connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:  # noqa: ARG002  # the event's signature
        self._open.add(typing.cast(AdaptedConnection, connection).driver_connection)

    def terminate(self) -> None:
        """Terminate all of them; a statement that waits for its server fails now."""
        connections, self._open = list(self._open), weakref.WeakSet()
        for connection in connections:
            connection.terminate()

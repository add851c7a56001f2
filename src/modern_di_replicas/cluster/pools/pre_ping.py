"""Pinging connections that were idle for a while, and only those."""

import time
import typing

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry


IDLE_SECONDS: typing.Final = 1.0
"""A connection that was used a moment ago is not asked whether it lives."""

_RETURNED: typing.Final = "modern_di_replicas.returned"


def ping_when_idle(engine: Engine) -> None:
    """Ping a pooled connection at its checkout when it was idle for more than `IDLE_SECONDS`.

    SQLAlchemy's own pre-ping asks at every checkout, which costs a busy application one round trip for each unit
    of work. A connection that does not answer is replaced, and so are the others of its pool when they come up.
    """

    @event.listens_for(engine, "checkin")
    def _note_time(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:  # noqa: ARG001  # the event's signature
        record.info[_RETURNED] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _ping(connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: object) -> None:  # noqa: ARG001  # the event's signature
        returned = record.info.get(_RETURNED)
        if returned is None or time.monotonic() - returned < IDLE_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except Exception as error:
            raise InvalidatePoolError from error

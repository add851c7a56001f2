"""What a new connection is asked before anybody uses it: whether its server is what it is taken for."""

import collections.abc
import typing

from sqlalchemy import AdaptedConnection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection


REPLAYED: typing.Final = "SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint"


def refuse_setbacks(engine: Engine, furthest: collections.abc.Callable[[], float]) -> None:
    """Refuse connections to a standby that has less than it once had.

    A standby that crashed lets readers in before it has replayed again what it had shown before. What was known of it
    is not true for a while, and only its new connections can meet that: the crash has ended the others.

    Args:
        engine: a replica's.
        furthest: how far the replica was known to be; 0 where nothing is known.

    """

    @event.listens_for(engine, "connect")
    def _check(connection: DBAPIConnection, record: object) -> None:  # noqa: ARG001  # the event's signature
        known = furthest()
        if not known:
            return
        adapted = typing.cast(AdaptedConnection, connection)
        replayed = adapted.run_async(lambda driver: driver.fetchval(REPLAYED))
        if replayed is not None and replayed < known:
            adapted.driver_connection.terminate()
            msg = "the standby has restarted, and has not replayed yet what it had shown before"
            raise ConnectionResetError(msg)


def refuse_standbys(engine: Engine) -> None:
    """Refuse connections to a primary that is a standby now: it would answer for the primary with what it has.

    Args:
        engine: the primary's.

    """

    @event.listens_for(engine, "connect")
    def _check(connection: DBAPIConnection, record: object) -> None:  # noqa: ARG001  # the event's signature
        driver = typing.cast(AdaptedConnection, connection).driver_connection
        # Reported by the server as it connects, from PostgreSQL 14 on; a proxy may keep it to itself.
        if getattr(driver.get_settings(), "in_hot_standby", "off") == "on":
            driver.terminate()
            msg = "the server that was the primary is a standby now, and no other primary is known yet"
            raise ConnectionRefusedError(msg)

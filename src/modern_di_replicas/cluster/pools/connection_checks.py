"""Validate new connections: whether the server still has the role it is used for."""

import collections.abc
import typing

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection

from modern_di_replicas.cluster.failures import Failure, note_failure
from modern_di_replicas.cluster.waiting import ask
from modern_di_replicas.drivers.known import driver_of
from modern_di_replicas.errors import PrimaryUnavailable


REPLAYED: typing.Final = "SELECT (pg_catalog.pg_last_wal_replay_lsn() - '0/0')::bigint AS replayed"
IN_RECOVERY: typing.Final = "SELECT pg_catalog.pg_is_in_recovery() AS in_recovery"


def refuse_regressed(engine: Engine, furthest: collections.abc.Callable[[], float]) -> None:
    """Refuse connections to a standby that is behind its own earlier position.

    After a crash, a standby accepts connections before it has replayed its WAL again up to its earlier position. Until
    then its known position is wrong, for new connections only: the crash has closed the others.

    Args:
        engine: the engine of a replica.
        furthest: returns the furthest known position of the replica; 0 if unknown.

    """
    driver = driver_of(engine)

    @event.listens_for(engine, "connect")
    def _check(connection: DBAPIConnection, record: object) -> None:  # noqa: ARG001  # the event's signature
        known = furthest()
        if not known:
            return
        replayed = ask(engine.dialect, connection, lambda opened: driver.fetch_row(opened, REPLAYED))["replayed"]
        if replayed is not None and replayed < known:
            driver.terminate(engine.dialect.get_driver_connection(connection))
            error = ConnectionResetError("the standby has restarted, and has not reached its earlier position yet")
            note_failure(error, Failure.DOWN)
            raise error


def refuse_standbys(engine: Engine, *, always_ask: bool = False) -> None:
    """Refuse connections to a primary that is a standby now: its reads could be stale.

    Args:
        engine: the engine of the primary.
        always_ask: whether to ignore the reported parameter, because a pooler may report an old value.

    """
    driver = driver_of(engine)

    @event.listens_for(engine, "connect")
    def _check(connection: DBAPIConnection, record: object) -> None:  # noqa: ARG001  # the event's signature
        opened = engine.dialect.get_driver_connection(connection)
        # Reported by the server at the connect. A pooler may omit it, or report the value from before a promotion: so
        # it is a hint, and the server is asked.
        if not always_ask and not driver.reports_standby(opened):
            return
        if ask(engine.dialect, connection, lambda asked: driver.fetch_row(asked, IN_RECOVERY))["in_recovery"]:
            driver.terminate(opened)
            raise PrimaryUnavailable(reason="it is a standby now, and no other primary is known yet")

"""Detect direct use of the driver's connections, which bypasses SQLAlchemy."""

import collections.abc
import functools
import typing

from sqlalchemy import Engine, PoolProxiedConnection, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from modern_di_replicas.cluster.waiting import ask
from modern_di_replicas.drivers.known import driver_of
from modern_di_replicas.errors import ConfigurationError, TransactionRolledBackError
from modern_di_replicas.routing.statements import commits, may_write


Info = dict[typing.Any, typing.Any]
"""What is noted of a driver connection; see `info_of`."""

_INFO: typing.Final = "modern_di_replicas.info"
EXPECTED: typing.Final = "modern_di_replicas.expected"
"""The key of the statement that SQLAlchemy, or the library itself, is about to send."""
COMMIT: typing.Final = "COMMIT;"
"""The text that the driver sends."""


Notice = collections.abc.Callable[[Info, str | None], None]
"""Takes the `info` of a connection, and the text of a statement; None for a COPY into a table."""


def watch_driver(engine: Engine, noticed: Notice | None = None) -> None:
    """Raise where a commit on an engine's connections was lost, and detect their direct use.

    Args:
        engine: the engine of the primary.
        noticed: called before a statement that SQLAlchemy did not send and that may write or commit.

    """
    driver = driver_of(engine)

    @event.listens_for(engine, "do_connect")
    def _make_reporting(dialect: object, record: object, cargs: object, cparams: dict[str, typing.Any]) -> None:  # noqa: ARG001  # the event's signature
        driver.make_reporting(cparams)

    def check_commit(cursor: object, statement: str, *given: typing.Any) -> None:  # noqa: ARG001  # the events' signatures
        if commits(statement):
            opened = given[-1].root_connection.connection.dbapi_connection
            # SQLAlchemy does not report that PostgreSQL answered ROLLBACK. If this query fails, the transaction has
            # failed or the connection is lost: either way nothing is committed, and the error says so.
            if ask(engine.dialect, opened, driver.has_failed):
                raise TransactionRolledBackError

    event.listen(engine, "do_execute", check_commit)
    event.listen(engine, "do_execute_no_params", check_commit)

    @event.listens_for(engine, "connect")
    def _watch(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        opened = engine.dialect.get_driver_connection(connection)
        info = record.info[_INFO] = {}
        if not driver.report(opened, functools.partial(_report, info, noticed)):
            raise ConfigurationError(
                field="connect_args",
                value=type(opened),
                remedy="let the library make the connections: it could not tell whether a commit was lost on these",
            )


def info_of(connection: PoolProxiedConnection | ConnectionPoolEntry) -> Info:
    """Return the dictionary that lives as long as the driver's connection.

    SQLAlchemy's own `info` is copied when a connection is detached from its pool.
    """
    try:
        return typing.cast(Info, connection.info.get(_INFO, connection.info))  # a replica's has no other
    except NotImplementedError:  # SQLAlchemy's first connection, which is not in a pool yet
        return {}


def allow_lost_rollbacks(engine: Engine) -> None:
    """Let a rollback on a lost connection succeed: the server has rolled back its transaction.

    An error would replace the result, or the error, of the unit of work. SQLAlchemy has no event around a rollback; the
    dialect belongs to this engine alone.
    """
    driver, dialect, do_rollback = driver_of(engine), engine.dialect, engine.dialect.do_rollback

    def roll_back(connection: PoolProxiedConnection) -> None:
        try:
            do_rollback(connection)
        except Exception as error:
            opened = dialect.get_driver_connection(typing.cast(DBAPIConnection, connection.dbapi_connection))
            if not (driver.is_lost(error) or driver.is_closed(opened)):
                raise
            connection.invalidate(error, soft=True)  # the pool replaces it at its next checkout

    typing.cast(typing.Any, dialect).do_rollback = roll_back  # replaces a method of one object


def _report(info: Info, noticed: Notice | None, statement: str | None) -> None:
    if noticed is None:
        return
    if statement is None or (statement != info.get(EXPECTED) and may_write(statement)):
        noticed(info, statement)

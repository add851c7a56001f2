"""What an application does on the driver's connections, past SQLAlchemy."""

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
"""What SQLAlchemy keeps for a connection of the driver, for as long as that lives."""

EXPECTED: typing.Final = "modern_di_replicas.expected"
"""The key of the statement that SQLAlchemy, or the library itself, is about to send."""
COMMIT: typing.Final = "COMMIT;"
"""As the driver sends it."""


Notice = collections.abc.Callable[[Info, str | None], None]
"""Takes the information of a connection, and the text of a statement; None for a COPY into a table."""


def watch_driver(engine: Engine, noticed: Notice | None = None) -> None:
    """Have an engine's connections refuse to lose a commit, and notice what is done on them past SQLAlchemy.

    Args:
        engine: the primary's.
        noticed: is called before a statement that SQLAlchemy did not send and that may write, or commit.

    """
    driver = driver_of(engine)

    @event.listens_for(engine, "do_connect")
    def _make_reporting(dialect: object, record: object, cargs: object, cparams: dict[str, typing.Any]) -> None:  # noqa: ARG001  # the event's signature
        driver.make_reporting(cparams)

    def check_commit(cursor: object, statement: str, *given: typing.Any) -> None:  # noqa: ARG001  # the events' signatures
        if commits(statement):
            opened = given[-1].root_connection.connection.dbapi_connection
            # SQLAlchemy does not pass on that PostgreSQL answered ROLLBACK. If this question fails, the transaction has
            # failed or the connection is lost: either way nothing is committed, and the error says so.
            if ask(engine.dialect, opened, driver.has_failed):
                raise TransactionRolledBackError

    event.listen(engine, "do_execute", check_commit)
    event.listen(engine, "do_execute_no_params", check_commit)

    @event.listens_for(engine, "connect")
    def _watch(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        opened = engine.dialect.get_driver_connection(connection)
        if not driver.report(opened, functools.partial(_report, record.info, noticed)):
            raise ConfigurationError(
                field="connect_args",
                value=type(opened),
                remedy="let the library make the connections: it could not tell whether a commit was lost on these",
            )


def allow_lost_rollbacks(engine: Engine) -> None:
    """Have a rollback on a lost connection succeed: the server rolls back what that had begun.

    It would replace the result, or the error, of the unit of work that ends with it. SQLAlchemy has no event in its
    place; the dialect is the engine's own.
    """
    driver, do_rollback = driver_of(engine), engine.dialect.do_rollback

    def roll_back(connection: PoolProxiedConnection) -> None:
        try:
            do_rollback(connection)
        except Exception as error:
            if not (driver.is_lost(error) or driver.is_closed(connection.driver_connection)):
                raise
            connection.invalidate(error, soft=True)  # the pool replaces it at its next checkout

    typing.cast(typing.Any, engine.dialect).do_rollback = roll_back  # a method of one object is replaced


def _report(info: Info, noticed: Notice | None, statement: str | None) -> None:
    if noticed is None:
        return
    if statement is None or (statement != info.get(EXPECTED) and may_write(statement)):
        noticed(info, statement)

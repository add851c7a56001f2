"""An engine whose connections all share one: that of a test, in a transaction that never commits."""

import collections.abc
import contextlib
import copy
import typing

import modern_di
from sqlalchemy import Connection, Dialect, Engine, NullPool
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import await_only

from modern_di_replicas.cluster.engines.either import AnyEngine, PerUnitOfWork
from modern_di_replicas.intent import Intent
from modern_di_replicas.testing.shared_connection import TakingTurns, watch
from modern_di_replicas.testing.turns import Savepoints, Turn, Turns


ON_THE_ENGINE: typing.Final = "Core on the engine itself"
"""The name in an error of what is outside of all units of work."""


@contextlib.contextmanager
def overridden(
    container: modern_di.Container, roles: tuple[type[AnyEngine], ...], shared: AnyEngine
) -> collections.abc.Iterator[None]:
    """Replace the engines of both roles by one engine."""
    with contextlib.ExitStack() as overrides:
        for role in roles:
            provider = typing.cast(typing.Any, container.find_provider(role))
            overrides.enter_context(container.override(provider, shared))
        yield


def dialect_of(connection: Connection) -> Dialect:
    """Return the dialect of a connection without the changes of the primary's engine, which do not apply here."""
    dialect = copy.copy(connection.dialect)
    for method in ("do_commit", "do_rollback", "do_execute"):
        vars(dialect).pop(method, None)
    return dialect


def name_of(intent: Intent) -> str:
    """Return the name of a unit of work in an error."""
    return f"{intent.endpoint} ({intent.reason})" if intent.endpoint else f"a unit of work ({intent.reason})"


class SharedEngine(AsyncEngine, PerUnitOfWork):
    """An engine whose connections all share one, in a transaction that never commits.

    Args:
        connection: the one connection, in a transaction.
        timeout: seconds a unit of work waits for its turn.

    """

    def __init__(self, connection: AsyncConnection, *, timeout: float) -> None:
        self._dialect = dialect_of(typing.cast(Connection, connection.sync_connection))
        self._url = connection.engine.url
        self._connection = connection
        self._turns = Turns(timeout)
        self._savepoints = Savepoints()
        watch(self._dialect, self._turns)
        super().__init__(self._engine(self, ON_THE_ENGINE))

    def for_unit_of_work(self, intent: Intent) -> AsyncEngine:
        """Return the engine of one unit of work, which waits for its turn."""
        unit = AsyncEngine.__new__(AsyncEngine)
        AsyncEngine.__init__(unit, self._engine(unit, name_of(intent)))
        return unit

    def _engine(self, unit: object, name: str) -> Engine:
        def connect() -> DBAPIConnection:
            await_only(self._turns.take(unit, name))
            real = typing.cast(typing.Any, self._connection.sync_connection).connection.dbapi_connection
            turn = Turn(self._turns, unit, name)
            return typing.cast(DBAPIConnection, TakingTurns(real, turn, self._savepoints))

        pool = NullPool(connect, dialect=self._dialect)
        return Engine(pool, self._dialect, self._url, logging_name=name)

"""Run a test in one transaction that is rolled back, both roles and all units of work included."""

import collections.abc
import contextlib
import copy
import types
import typing

import modern_di
from sqlalchemy import Connection, Dialect, Engine, NullPool
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import await_only

from modern_di_replicas.cluster.engines.either import AnyEngine, PerUnitOfWork
from modern_di_replicas.cluster.engines.primary import PrimaryEngine
from modern_di_replicas.cluster.engines.replica import ReplicaEngine
from modern_di_replicas.intent import Intent
from modern_di_replicas.testing.shared_connection import TakingTurns, watch
from modern_di_replicas.testing.turns import Savepoints, Turn, Turns


def rolled_back(container: modern_di.Container, *, timeout: float = 10.0) -> "RolledBack":
    """Run a whole test in one transaction on the primary, and roll it back at the end.

    `async with rolled_back(container) as connection`; with the providers of `modern_di_replicas.sync`,
    `with rolled_back(container) as connection`.

    Reads and writes of every unit of work of the container use one connection. A unit of work sees the commits of
    earlier ones; a rollback undoes its own changes only. Units of work take turns: one with uncommitted changes keeps
    its turn, one that has only read continues later; sessions of one unit of work may overlap. In synchronous code a
    turn lasts until the last connection is returned.

    Args:
        container: the application's container, opened.
        timeout: seconds a unit of work waits for another one to end.

    Returns:
        A context manager that yields the connection, to prepare and check rows.

    Raises:
        SharedConnectionBusyError: in a unit of work whose turn does not come within `timeout`.

    """
    return RolledBack(container, timeout)


class RolledBack:
    """The context that `rolled_back` returns, for either half."""

    def __init__(self, container: modern_di.Container, timeout: float) -> None:
        self._given = container, timeout

    async def __aenter__(self) -> AsyncConnection:
        self._asynchronous = _rolled_back(*self._given)
        return await self._asynchronous.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        await self._asynchronous.__aexit__(kind, error, traceback)

    def __enter__(self) -> Connection:
        # Only a synchronous application needs the synchronous half.
        from modern_di_replicas.testing.rolled_back_sync import rolled_back_sync  # noqa: PLC0415

        self._synchronous = rolled_back_sync(*self._given)
        return self._synchronous.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        self._synchronous.__exit__(kind, error, traceback)


@contextlib.asynccontextmanager
async def _rolled_back(
    container: modern_di.Container,
    timeout: float,  # noqa: ASYNC109  # of each wait in it, not of the whole
) -> collections.abc.AsyncIterator[AsyncConnection]:
    primary = container.resolve(PrimaryEngine)
    async with primary.connect() as connection, connection.begin() as transaction:
        shared = SharedEngine(connection, timeout=timeout)
        with overridden(container, (PrimaryEngine, ReplicaEngine), shared):
            yield connection
        await transaction.rollback()


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


ON_THE_ENGINE: typing.Final = "Core on the engine itself"


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

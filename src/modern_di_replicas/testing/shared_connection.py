"""Uses of the connection that all units of work of a test share: their transactions are savepoints."""

import asyncio
import collections.abc
import typing

from sqlalchemy import AdaptedConnection
from sqlalchemy.util import await_only, greenlet_spawn

from modern_di_replicas.routing.statements import foresee, may_write
from modern_di_replicas.testing.turns import GivenBack, Savepoints, Turn, Turns


class SharedConnection(AdaptedConnection):
    """One use of the shared connection: its transaction is a savepoint.

    Args:
        real: the connection of the driver, as SQLAlchemy adapts it.
        turns: the turns of either half, notified when it is returned.
        savepoints: the savepoints of the current turn.

    """

    def __init__(self, real: object, turns: GivenBack, savepoints: Savepoints) -> None:
        self._real = typing.cast(typing.Any, real)
        self._connection = getattr(self._real, "driver_connection", self._real)  # a synchronous one is the driver's own
        self._turns = turns
        self._savepoints = savepoints
        self._savepoint: str | None = None
        self._commits_itself = False

    def __getattr__(self, name: str) -> typing.Any:  # noqa: ANN401  # whatever the real one has
        return getattr(self._real, name)

    def cursor(self, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401  # as the real one has it
        if self._savepoint is None:
            self._savepoint, statement = self._savepoints.begin()
            self._run([statement])
        return self._real.cursor(*args, **options)

    def commit(self) -> None:
        self._end(self._savepoints.release)

    def rollback(self) -> None:
        self._end(self._savepoints.release if self._commits_itself else self._savepoints.roll_back)

    def _end(self, end: collections.abc.Callable[[str], list[str]]) -> None:
        name, self._savepoint = self._savepoint, None
        if name is not None:
            self._run(end(name))

    def set_isolation_level(self, level: object) -> None:
        """Note whether statements are committed one by one; any other isolation is that of the shared transaction."""
        if isinstance(level, str):  # asyncpg's; psycopg says autocommit apart, and gives an `IsolationLevel`, or None
            self._commits_itself = level == "autocommit"

    def set_autocommit(self, value: bool) -> None:  # noqa: FBT001  # psycopg's signature
        """Note the same, as psycopg says it."""
        self._commits_itself = value

    def set_read_only(self, value: object) -> None:
        """Do nothing, as asyncpg's would: the shared transaction has begun."""

    set_deferrable = set_read_only

    def close(self) -> None:
        try:
            self.rollback()
        finally:
            self._turns.give_back()

    terminate = close

    def _run(self, statements: collections.abc.Iterable[str]) -> None:
        for statement in statements:
            cursor = self._real.cursor()
            cursor.execute(statement)
            cursor.close()


class TakingTurns(SharedConnection):
    """One use of the connection by a unit of work that gives way while it has only read.

    Args:
        real: the connection of the driver, as SQLAlchemy adapts it.
        turn: that of the unit of work.
        savepoints: the savepoints of the current turn.

    """

    def __init__(self, real: object, turn: Turn, savepoints: Savepoints) -> None:
        super().__init__(real, turn, savepoints)
        self._turn = turn
        self._all = turn.turns
        self._number = 0

    def cursor(self, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401  # as the real one has it
        await_only(self._turn.resume())
        cursor = self._real.cursor(*args, **options)
        self._all.begin(cursor)
        if args or any(options.values()):
            self._all.keep()  # a cursor on the server: psycopg names it, asyncpg has an option
        if self._number != self._all.number:
            self._number, self._savepoint = self._all.number, None
            self._run(self._savepoints.abandon(self._number))
        if self._savepoint is None:
            self._savepoint, statement = self._savepoints.begin()
            self._run([statement])
        return cursor

    def ended(self, cursor: object) -> None:
        """Record that a cursor unknown to SQLAlchemy has ended its statement, which only read."""
        self._all.end(cursor, keeps=False)

    def _end(self, end: collections.abc.Callable[[str], list[str]]) -> None:
        if self._savepoint is None or self._number != self._all.number:
            self._savepoint = None  # there is none, or it has only read and another turn ended it
            return
        self._all.begin(self)
        try:
            super()._end(end)
        finally:
            self._all.end(self, keeps=False)
        if not self._savepoints.are_open:
            self._all.settle()

    def _run(self, statements: collections.abc.Iterable[str]) -> None:
        if sent := list(statements):
            await_only(_completed(self._send(sent)))

    async def _send(self, statements: list[str]) -> None:
        async with self._all.order:
            await greenlet_spawn(super()._run, statements)


async def _completed(sending: collections.abc.Coroutine[typing.Any, typing.Any, None]) -> None:
    """Wait for an awaitable even if the caller is cancelled, so that a savepoint is set completely or not at all."""
    task = asyncio.ensure_future(sending)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def watch(dialect: typing.Any, turns: Turns) -> None:  # noqa: ANN401  # its methods are replaced
    """Let a copied dialect report the statements of a turn; events do not report how a statement ended."""

    def watched(execute: collections.abc.Callable[..., None]) -> collections.abc.Callable[..., None]:
        def run(cursor: typing.Any, statement: str, *args: typing.Any) -> None:  # noqa: ANN401
            keeps = True  # after an error only a rollback helps
            try:
                execute(cursor, statement, *args)
                keeps = _keeps(statement)
            finally:
                turns.end(cursor, keeps=keeps)

        return run

    def get_driver_connection(connection: typing.Any) -> typing.Any:  # noqa: ANN401
        turns.keep()  # whatever is done with it
        return original(connection)

    original = dialect.get_driver_connection
    dialect.get_driver_connection = get_driver_connection
    for method in ("do_execute", "do_executemany", "do_execute_no_params"):
        setattr(dialect, method, watched(getattr(dialect, method)))


def _keeps(statement: str) -> bool:
    """Return whether a statement writes, locks, sets something or makes a savepoint."""
    return foresee(statement) is not None or may_write(statement)

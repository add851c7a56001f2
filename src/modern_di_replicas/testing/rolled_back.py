"""Run a test in one transaction that is rolled back, both roles and all units of work included."""

import collections.abc
import contextlib
import types

import modern_di
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from modern_di_replicas.cluster.engines.primary import PrimaryEngine
from modern_di_replicas.cluster.engines.replica import ReplicaEngine
from modern_di_replicas.testing.shared_engine import SharedEngine, overridden


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

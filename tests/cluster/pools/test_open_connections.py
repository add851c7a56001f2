"""An engine's open connections can be closed without a message to their server."""

import asyncio
import collections.abc
import types

import pytest
import sqlalchemy.exc
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from modern_di_replicas.cluster.pools import open_connections
from modern_di_replicas.cluster.pools.open_connections import (
    BURST,
    REFILL,
    OpenConnections,
)
from modern_di_replicas.drivers.opening import TerminatedWhileOpeningError
from modern_di_replicas.testing import LocalCluster
from tests.unconnected import engines


ONE = text("SELECT 1")


@pytest.fixture
async def engine(replicated_cluster: LocalCluster) -> collections.abc.AsyncIterator[AsyncEngine]:
    engine = create_async_engine(replicated_cluster.primary.url)
    yield engine
    await engine.dispose()


async def test_connections_in_use_and_idle_ones_are_ended(engine: AsyncEngine) -> None:
    """Statements on connections in use fail, and the next checkout gets a new connection."""
    connections = OpenConnections(engine.sync_engine)
    backend = text("SELECT pg_backend_pid()")
    async with engine.connect() as taken, engine.connect() as other:
        idle = await other.scalar(backend)
        await other.close()
        connections.terminate()
        with pytest.raises(sqlalchemy.exc.DBAPIError):
            await taken.execute(ONE)
    async with engine.connect() as connection:
        assert await connection.scalar(backend) != idle


async def test_a_connection_that_was_being_opened_meanwhile_is_not_given_out(engine: AsyncEngine) -> None:
    """INVARIANT: it may lead to the server whose connections were terminated."""
    connections = OpenConnections(engine.sync_engine)

    @event.listens_for(engine.sync_engine, "do_connect")
    def end_all(*_: object) -> None:
        connections.terminate()

    with pytest.raises(TerminatedWhileOpeningError):
        await engine.connect()


def test_connections_to_a_silent_server_are_ended_a_few_times_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time, all connections have to be opened again; that load must not keep the server silent."""
    now, ended = 100.0, []
    monkeypatch.setattr(open_connections, "time", types.SimpleNamespace(monotonic=lambda: now))
    primary, _ = engines()
    connections = OpenConnections(primary.sync_engine)
    monkeypatch.setattr(connections, "terminate", lambda: ended.append(now))
    for _ in range(2 * BURST):
        connections.end_silent()
    assert len(ended) == BURST
    now += REFILL
    for _ in range(2):
        connections.end_silent()
    assert len(ended) == BURST + 1


async def test_a_pool_that_does_not_close_in_time_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen server does not answer the closing message."""
    monkeypatch.setattr(open_connections, "CLOSE_TIMEOUT", 0.01)
    primary, _ = engines()
    connections = OpenConnections(primary.sync_engine)
    ended = asyncio.Event()
    monkeypatch.setattr(connections, "terminate", ended.set)

    async def close() -> None:
        await ended.wait()  # as the driver does, until the connection is terminated

    await connections.closed(close())
    assert ended.is_set()
    ended.clear()
    await connections.closed(asyncio.sleep(0))
    assert not ended.is_set()


async def test_a_forked_process_cannot_use_its_parents_connections(engine: AsyncEngine) -> None:
    """They are discarded, and those in use are detached from their sockets; new ones belong to the child."""
    connections = OpenConnections(engine.sync_engine)
    async with engine.connect() as connection:
        pool = engine.pool
        connections.forget()
        assert engine.pool is not pool
        with pytest.raises(sqlalchemy.exc.DBAPIError):
            await connection.execute(ONE)
    async with engine.connect() as connection:
        assert await connection.scalar(ONE) == 1

"""Concurrent use of one session in several tasks is refused as in SQLAlchemy, and nothing is lost."""

import asyncio
import collections.abc
import contextlib
import gc
import typing

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IllegalStateChangeError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

from modern_di_replicas import RoutedSession, close_session
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import Servers, serving


READ = text("SELECT 1")
SLOW = text("SELECT 1 FROM pg_sleep(0.05)")


@pytest.fixture
def no_garbage_collection() -> collections.abc.Iterator[None]:
    """Disable garbage collection, so that a connection returned only by it counts as lost."""
    gc.disable()
    yield
    gc.enable()


def engine_of(servers: Servers, role: str) -> AsyncEngine:
    return servers.primary if role == "primary" else servers.replica


@pytest.mark.usefixtures("no_garbage_collection")
@pytest.mark.parametrize("role", ["primary", "replica"])
@pytest.mark.parametrize("tasks", [5, 16])
@pytest.mark.parametrize("statement", [READ, SLOW], ids=["fast", "slow"])
async def test_concurrent_first_statements_are_refused_and_leave_nothing_behind(
    shop_cluster: LocalCluster, role: str, tasks: int, statement: typing.Any
) -> None:
    """INVARIANT: an endpoint that wrongly shares a session between tasks leaks no connection."""
    async with serving(shop_cluster) as servers:
        for _ in range(3):
            await servers.replica.dispose()  # an empty pool, where a checkout has to wait
            await servers.primary.dispose()
            session = RoutedSession(engine_of(servers, role))
            with pytest.raises(InvalidRequestError, match="concurrent operations are not permitted"):
                await asyncio.gather(*(session.execute(statement) for _ in range(tasks)))
            closing = close_session(session)
            if closing is not None:
                await closing
            assert servers.checked_out() == 0


@pytest.mark.parametrize("isolation", ["AUTOCOMMIT", "READ COMMITTED"])
async def test_the_first_of_concurrent_statements_has_its_result(shop_cluster: LocalCluster, isolation: str) -> None:
    """The other statements are refused; the session stays usable."""
    async with serving(shop_cluster, read_isolation=isolation) as servers, servers.session() as session:
        results = await asyncio.gather(*(session.scalar(READ) for _ in range(5)), return_exceptions=True)
        assert results[0] == 1
        assert all(isinstance(result, InvalidRequestError) for result in results[1:])
        assert await session.scalar(READ) == 1
        assert session.decision.server != "primary"


@pytest.mark.parametrize("role", ["primary", "replica"])
async def test_closing_waits_for_statements_of_other_tasks(shop_cluster: LocalCluster, role: str) -> None:
    """SQLAlchemy refuses it, and the session stays open."""
    async with serving(shop_cluster) as servers:
        for end in ("close", "reset"):
            session = RoutedSession(engine_of(servers, role))
            running = asyncio.ensure_future(session.scalar(SLOW))
            await asyncio.sleep(0)
            await getattr(session, end)()
            assert running.done()
            assert await running == 1
            assert servers.checked_out() == 0


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
async def test_ending_a_session_while_it_takes_a_connection_is_refused(shop_cluster: LocalCluster, end: str) -> None:
    """As in SQLAlchemy's own sessions."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        running = asyncio.ensure_future(session.scalar(READ))
        await asyncio.sleep(0)
        with pytest.raises(IllegalStateChangeError if end == "close" else InvalidRequestError):
            await session.run_sync(lambda sync: getattr(sync, end)())
        assert await running == 1


@pytest.mark.usefixtures("no_garbage_collection")
@pytest.mark.parametrize("moment", ["begin", "rollback"])
async def test_a_connection_is_returned_if_its_setup_is_cancelled(shop_cluster: LocalCluster, moment: str) -> None:
    """While the session sets up its connection, a listener of the application or the server may be slow."""
    waiting, reached = asyncio.Event(), asyncio.Event()

    def wait(*_: object) -> None:
        reached.set()
        await_only(waiting.wait())

    async with serving(shop_cluster, read_isolation="READ COMMITTED") as servers:
        session = servers.session()
        await session.scalar(READ)
        await session.rollback()
        for engine in servers.replica.engines.values():
            event.listen(engine.sync_engine, moment, wait)

        async def use() -> None:
            await session.scalar(READ)
            await session.rollback()

        task = asyncio.ensure_future(use())
        await reached.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        waiting.set()
        assert servers.checked_out() == 0
        await session.close()

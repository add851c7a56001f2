"""INVARIANT: however requests end, every connection is returned to its pool, without the garbage collector."""

import asyncio
import collections
import collections.abc
import gc
import random

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from modern_di_replicas import RoutedSession, close_session
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import Servers, serving
from tests.session.models import Item
from tests.waiting import until


TASKS = 20


@pytest.fixture
def no_garbage_collection() -> collections.abc.Iterator[None]:
    """Disable garbage collection, so that a connection returned only by it counts as lost."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def read(session: RoutedSession) -> None:
    item = await session.get_one(Item, 1)
    assert item.amount == 10


async def use_at_once(session: RoutedSession) -> None:
    """Use one session in several tasks, as a faulty endpoint does."""
    await asyncio.gather(*(session.scalar(text("SELECT 1")) for _ in range(5)))


async def be_cancelled(session: RoutedSession) -> None:
    """Be cancelled at any point, as by a client that disconnects."""
    async with asyncio.timeout(random.random() * 0.01):  # noqa: S311  # no secret
        for _ in range(20):
            await read(session)
    raise TimeoutError


async def fail(session: RoutedSession) -> None:
    """Fail in a statement, on the session's server and on the primary."""
    await session.execute(text("SELECT 1 / 0"))


async def serve(servers: Servers, number: int) -> str:
    """Serve one request; return how it ended."""
    use = {0: use_at_once, 1: be_cancelled, 2: fail}.get(number % 20, read)
    engine = servers.primary if number % 3 == 0 else servers.replica
    session = RoutedSession(engine, expire_on_commit=False)
    ended = "well"
    try:
        await use(session)
    except (SQLAlchemyError, TimeoutError) as error:
        ended = type(error).__name__
    finally:
        closing = close_session(session)
        if closing is not None:
            await closing
    return ended


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("no_garbage_collection")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("requests", [300, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_requests_lose_no_connection_however_they_end(shop_cluster: LocalCluster, requests: int) -> None:
    """One in twenty shares a session between tasks, one is cancelled, one fails; on both servers."""
    numbers = iter(range(requests))
    ended: collections.Counter[str] = collections.Counter()

    async with serving(shop_cluster, replica_pool_size=5, replica_max_overflow=5) as servers:

        async def client() -> None:
            for number in numbers:
                ended[await serve(servers, number)] += 1

        await asyncio.gather(*(client() for _ in range(TASKS)))
        await until(lambda: servers.checked_out() == 0)

    assert ended.total() == requests
    assert ended["well"] >= requests * 0.85
    assert ended["TimeoutError"] == requests * 0.05
    assert ended["DBAPIError"] + ended["DataError"] == requests * 0.05

"""A pool serves checkouts in order; a replaced pool opens no more connections."""

import asyncio
import gc
import sys
import threading
import typing

import pytest
from sqlalchemy import QueuePool, event, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.util import await_only, greenlet_spawn

from modern_di_replicas.cluster.pools import permits
from modern_di_replicas.cluster.pools.replaceable import ReplaceablePool
from modern_di_replicas.testing import LocalCluster
from tests.pgbouncer import not_behind_a_pooler
from tests.session.conftest import Servers, serving
from tests.waiting import until, wait_for


LIMIT, CLIENTS = 2, 6
POOL: typing.Final[dict[str, typing.Any]] = {
    "primary_pool_size": LIMIT,
    "primary_max_overflow": 0,
    "primary_pool_timeout": 60.0,
}
OPENED_SINCE = text("""
    SELECT count(*), pg_sleep(0.05) FROM pg_stat_activity
    WHERE application_name = 'app-primary' AND backend_start > CAST(CAST(:began AS text) AS timestamptz)
""")


async def count_opened(servers: Servers, began: str) -> int:
    async with servers.primary.connect() as connection:
        return typing.cast(int, (await connection.execute(OPENED_SINCE, {"began": began})).scalar_one())


async def come(servers: Servers, began: str) -> list[asyncio.Task[int]]:
    """Start checkouts; when this returns, each waits for a connection or for its server."""
    clients = [asyncio.create_task(count_opened(servers, began)) for _ in range(CLIENTS)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert not any(client.done() for client in clients)
    return clients


async def test_a_checkout_that_waits_for_a_pool_that_is_replaced_waits_for_the_next_one(
    replicated_cluster: LocalCluster,
) -> None:
    """INVARIANT: the limit applies to both pools together, and no connection is lost.

    Otherwise a failover under load would open twice as many connections to the new primary.
    """
    async with serving(replicated_cluster, **POOL) as servers:
        held = [await servers.primary.connect() for _ in range(LIMIT)]
        began = replicated_cluster.primary.execute("SELECT clock_timestamp()")
        waiting = await come(servers, began)
        servers.primary.follow(replicated_cluster.primary.url)
        waiting += await come(servers, began)

        assert 1 <= max(await asyncio.gather(*waiting)) <= LIMIT, "and no checkout waits for what is held"
        for connection in held:
            await connection.close()
        assert await count_opened(servers, began) == LIMIT


@not_behind_a_pooler("the connection to the server is the pooler's")
async def test_an_engine_that_is_disposed_of_under_load_keeps_its_limit(replicated_cluster: LocalCluster) -> None:
    """A connection that is returned late is closed, and waiting checkouts continue in the new pool."""
    async with serving(replicated_cluster, **POOL) as servers:
        began = replicated_cluster.primary.execute("SELECT clock_timestamp()")
        held = [await servers.primary.connect() for _ in range(LIMIT)]
        waiting = await come(servers, began)
        await servers.primary.dispose()
        for connection in held:
            await connection.close()
        await asyncio.gather(*waiting)
        assert await count_opened(servers, began) == LIMIT


async def test_a_connection_that_is_made_while_the_pool_is_replaced_is_made_again(
    replicated_cluster: LocalCluster,
) -> None:
    """INVARIANT: it belongs to the replaced pool, whose limit no longer counts."""
    async with serving(replicated_cluster, **POOL) as servers:
        connects, goes_on = asyncio.Event(), asyncio.Event()

        @event.listens_for(servers.primary.sync_engine, "do_connect")
        def _wait(*_: object) -> None:
            connects.set()
            await_only(goes_on.wait())

        client = asyncio.create_task(count_opened(servers, "-infinity"))
        await connects.wait()
        before = servers.primary.pool
        await servers.primary.dispose()
        goes_on.set()
        assert await client >= 1
        assert before.in_use == 0  # type: ignore[attr-defined]  # of a class of ours
        assert servers.checked_out() == 0


async def test_a_pool_that_was_replaced_connects_to_the_current_one(replicated_cluster: LocalCluster) -> None:
    """However often it was replaced."""
    async with serving(replicated_cluster, **POOL) as servers:
        kept = servers.primary.pool
        for _ in range(2):
            servers.primary.follow(replicated_cluster.primary.url)
        connection = await greenlet_spawn(kept.connect)
        assert servers.checked_out() == 1
        await greenlet_spawn(connection.close)


async def test_checkouts_are_served_in_their_order(
    replicated_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INVARIANT: a client that returns at once takes no connection from one that has waited longer.

    Under load SQLAlchemy's own pool lets some wait until their timeout, and their reads would go to the primary.
    """
    monkeypatch.setattr(permits, "OVERTAKING_SECONDS", -1.0)
    # With one connection: of two, one may be pinged, and the next checkout served before the ping is answered.
    async with serving(replicated_cluster, **{**POOL, "primary_pool_size": 1}) as servers:
        served: list[int] = []

        async def client(number: int) -> None:
            for _ in range(3):
                async with servers.primary.connect() as connection:
                    served.append(number)
                    await connection.execute(text("SELECT 1"))

        await asyncio.gather(*map(client, range(CLIENTS)))
        for end in range(len(served)):
            counts = [served[:end].count(number) for number in range(CLIENTS)]
            assert max(counts) - min(counts) <= 1, served


async def test_a_checkout_that_waits_too_long_gets_sqlalchemys_error(replicated_cluster: LocalCluster) -> None:
    """With its code, which links to SQLAlchemy's page; its place in the queue is free."""
    async with serving(replicated_cluster, **{**POOL, "primary_pool_timeout": 0.01}) as servers:
        held = [await servers.primary.connect() for _ in range(LIMIT)]
        with pytest.raises(PoolTimeoutError, match=r"size 2 overflow 0 reached, connection timed out, timeout 0\.01"):
            await servers.primary.connect()
        for connection in held:
            await connection.close()
        assert servers.checked_out() == 0


async def test_checkouts_that_wait_are_woken_when_a_connection_cannot_be_made(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: a free place in the pool is used at once; SQLAlchemy's own pool wakes no checkout for it."""
    failures = [OSError("no route")] * LIMIT

    def fail_at_first(*_: object) -> None:
        if failures:
            await_only(asyncio.sleep(0))  # meanwhile the other checkouts start to wait
            raise failures.pop()

    async with serving(replicated_cluster, **POOL) as servers:
        event.listen(servers.primary.sync_engine, "do_connect", fail_at_first)
        began = replicated_cluster.primary.execute("SELECT clock_timestamp()")
        clients = [asyncio.create_task(count_opened(servers, began)) for _ in range(CLIENTS)]
        async with asyncio.timeout(30):  # of the pool's 60
            answers = await asyncio.gather(*clients, return_exceptions=True)
        assert sum(isinstance(answer, BaseException) for answer in answers) == LIMIT
        assert await count_opened(servers, began) <= LIMIT


@pytest.mark.parametrize("overtaken", [-1.0, 60.0])
@pytest.mark.filterwarnings("ignore:The garbage collector is trying to clean up:sqlalchemy.exc.SAWarning")
async def test_a_connection_that_is_collected_in_another_thread_wakes_the_loop(
    replicated_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, overtaken: float
) -> None:
    """INVARIANT: a checkout that waits for it continues at once, even if the loop is otherwise idle."""
    monkeypatch.setattr(permits, "OVERTAKING_SECONDS", overtaken)
    async with serving(replicated_cluster, **{**POOL, "primary_pool_size": 1}) as servers:
        held = [await servers.primary.connect()]
        waiting = asyncio.create_task(count_opened(servers, "-infinity"))
        await until(lambda: typing.cast(ReplaceablePool, servers.primary.pool).waiting == 1)
        of_loop = threading.get_ident()

        def collect() -> None:
            wait_for(lambda: sys._current_frames()[of_loop].f_code.co_name == "select")  # noqa: SLF001  # documented
            held.clear()
            gc.collect()

        thread = threading.Thread(target=collect)
        thread.start()
        async with asyncio.timeout(20):
            assert await waiting >= 1
        thread.join()


async def test_checkouts_that_are_cancelled_together_leave_the_pool_empty(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: a checkout that is woken and then cancelled leaves nothing that counts as an idle connection."""
    async with serving(replicated_cluster, **POOL) as servers:

        @event.listens_for(servers.primary.sync_engine, "do_connect")
        def _wait(*_: object) -> None:
            await_only(asyncio.Event().wait())

        clients = await come(servers, "")
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

        assert servers.checked_out() == 0


@pytest.mark.parametrize("idle", [True, False])
async def test_a_checkout_cancelled_while_it_connects_keeps_idle_connections(
    replicated_cluster: LocalCluster, idle: bool
) -> None:
    """Only the entry that wakes checkouts is removed."""
    async with serving(replicated_cluster, **POOL) as servers:
        held = await servers.primary.connect()

        @event.listens_for(servers.primary.sync_engine, "do_connect")
        def _wait(*_: object) -> None:
            await_only(asyncio.Event().wait())

        client = asyncio.create_task(count_opened(servers, ""))
        await asyncio.sleep(0)
        if idle:
            await held.close()
        client.cancel()
        await asyncio.gather(client, return_exceptions=True)

        assert servers.checked_out() == (not idle)
        await held.close()
        assert typing.cast(QueuePool, servers.primary.pool).checkedin() == 1

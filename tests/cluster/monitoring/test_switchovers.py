"""Four switchovers under load."""

import asyncio
import typing

import pytest
import sqlalchemy.exc
from sqlalchemy import text

from modern_di_replicas import Monitor, RoutedSession
from modern_di_replicas.errors import PrimaryUnavailable, ServerFailedError
from modern_di_replicas.routing.snapshot import Role
from modern_di_replicas.testing import LocalCluster, LocalServer
from tests.pgbouncer import not_behind_a_pooler
from tests.session.conftest import serving
from tests.waiting import until


async def switch_over(here: LocalServer, there: LocalServer, standby: LocalServer) -> None:
    """Make another server the primary without data loss, and let the others follow it."""
    await asyncio.to_thread(here.stop)  # an orderly stop: the standbys receive all WAL before it ends
    await asyncio.to_thread(there.promote)
    await asyncio.to_thread(standby.follow, there)
    await asyncio.to_thread(here.follow, there)


@not_behind_a_pooler("a read that has moved to the primary can fail when that one ends", driver="asyncpg")
@pytest.mark.timeout(300)
async def test_four_switchovers_lose_no_acknowledged_write_and_show_no_error_in_reads(
    disposable_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """INVARIANT: acknowledged writes survive, and no read fails."""
    disposable_cluster.primary.execute("CREATE TABLE written (n bigint PRIMARY KEY)")
    disposable_cluster.catch_up()
    primary, first, second = disposable_cluster.servers
    acknowledged: list[int] = []
    reads = 0
    stopped = asyncio.Event()
    settings: dict[str, typing.Any] = {"probe_interval": 0.1, "primary_pool_timeout": 60, "replica_pool_timeout": 60}

    async with serving(disposable_cluster, **settings) as servers, Monitor(servers.replica):

        async def writer(number: int) -> None:
            while not stopped.is_set():
                number += 10
                try:
                    async with RoutedSession(servers.primary) as session:
                        await session.execute(text("INSERT INTO written VALUES (:n)"), {"n": number})
                        await session.commit()
                except (sqlalchemy.exc.DBAPIError, PrimaryUnavailable, OSError):
                    await asyncio.sleep(0.05)  # a client retries after a while
                    continue
                acknowledged.append(number)
                await asyncio.sleep(0.01)  # the pace of a client

        async def reader() -> None:
            nonlocal reads
            while not stopped.is_set():
                async with servers.session() as session:
                    assert await session.scalar(text("SELECT count(*) >= 0 FROM written"))
                reads += 1
                await asyncio.sleep(0.01)  # the pace of a client

        async def both_serve() -> bool:
            async with servers.session() as session:
                await session.execute(text("SELECT 1"))
            snapshot = servers.replica.snapshot
            roles = [] if snapshot is None else [state.role for state in snapshot.servers.values()]
            return roles.count(Role.STANDBY) == 2 and session.decision.server != "primary"

        tasks = [asyncio.create_task(writer(number)) for number in range(3)]
        tasks += [asyncio.create_task(reader()) for _ in range(5)]
        try:
            await until(lambda: len(acknowledged) > 10 and reads > 10)
            for here, there in ((primary, first), (first, primary)) * 2:
                before = len(acknowledged)
                await switch_over(here, there, second)
                await until(lambda before=before: len(acknowledged) > before + 10, seconds=60)  # type: ignore[misc]  # mypy cannot infer a default
                await until(both_serve)
                assert [task.exception() for task in tasks if task.done()] == []
        finally:
            stopped.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results == [None] * len(tasks)
    found = {int(n) for n in (await asyncio.to_thread(primary.execute, "SELECT n FROM written")).splitlines()}
    assert set(acknowledged) <= found
    assert [one for one in caplog.messages if "runs as a primary" in one] == [], "it was stopped"


@not_behind_a_pooler("it connects again by itself")
async def test_a_write_that_meets_a_primary_which_shuts_down_waits_for_the_next_one(
    disposable_cluster: LocalCluster,
) -> None:
    """PostgreSQL refuses it with SQLSTATE 57P03; nothing was sent, so a retry is safe."""
    disposable_cluster.primary.execute("CREATE TABLE written (n bigint PRIMARY KEY)")
    disposable_cluster.catch_up()
    primary, first, second = disposable_cluster.servers
    async with serving(disposable_cluster, probe_interval=0.1, probe_timeout=20) as servers, Monitor(servers.replica):
        second.freeze()  # which delays the shutdown: the primary waits until it has received everything
        stopping = asyncio.create_task(asyncio.to_thread(primary.stop))

        def is_refused() -> bool:
            try:
                primary.execute("SELECT 1")
            except ServerFailedError:
                return True
            return False

        await until(lambda: asyncio.to_thread(is_refused))

        async def write() -> None:
            async with servers.primary.begin() as connection:
                await connection.execute(text("INSERT INTO written VALUES (1)"))

        writing = asyncio.create_task(write())
        await asyncio.wait({writing}, timeout=0.2)
        assert not writing.done()
        second.thaw()
        await stopping
        await asyncio.to_thread(first.promote)
        await writing
    assert first.execute("SELECT n FROM written") == "1"

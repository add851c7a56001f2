"""Overload is not a server failure: no healthy server is ejected, and the application recovers at once."""

import asyncio
import collections.abc
import contextlib
import logging
import subprocess
import sys
import time
import typing

import pytest
from sqlalchemy import text

from modern_di_replicas import Monitor, NoReplicaAvailable, RoutedSession
from modern_di_replicas.observability import Ejected, ReadRefused, SnapshotPublished
from modern_di_replicas.routing.decision import Cause
from modern_di_replicas.testing import LocalCluster
from tests.driver import UNREACHABLE
from tests.observability.recorder import Recorder
from tests.pgbouncer import not_behind_a_pooler
from tests.session.conftest import Servers, serving
from tests.waiting import until


LOOPS = [
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param(lambda: pytest.importorskip("uvloop").new_event_loop(), id="uvloop"),
]
SETTINGS: dict[str, typing.Any] = {
    "probe_interval": 0.1,
    "probe_timeout": 0.5,
    "primary_pool_timeout": 60,
    "replica_pool_timeout": 60,
}
OVERLOADED = 3 * SETTINGS["probe_timeout"]
"""In seconds: every probe during that time is late."""


async def block_the_loop() -> None:
    """Compute something, or call a blocking client, inside a coroutine."""
    await asyncio.sleep(0)
    time.sleep(OVERLOADED)  # noqa: ASYNC251  # that is the fault


async def burn_processors() -> None:
    """Keep every processor busy with other processes."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]  # noqa: ASYNC220
    try:
        await asyncio.sleep(OVERLOADED)  # duration of the fault
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


async def nothing() -> None:
    """Add no fault: the load is ten times as many clients as connections."""
    await asyncio.sleep(OVERLOADED)  # the clients are the load


async def read(servers: Servers) -> str:
    async with servers.session() as session:
        await session.scalar(text("SELECT 1"))
        return session.decision.server


async def seconds_for_reads(servers: Servers) -> float:
    """Let as many clients as there are connections read ten times each."""

    async def client() -> None:
        for _ in range(10):
            await read(servers)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(6)))
    return time.perf_counter() - began


@contextlib.asynccontextmanager
async def clients(servers: Servers, count: int) -> collections.abc.AsyncIterator[None]:
    """Let clients read one after the other, and raise their errors."""
    stopped = asyncio.Event()

    async def client() -> None:
        while not stopped.is_set():
            await read(servers)

    tasks = [asyncio.create_task(client()) for _ in range(count)]
    try:
        yield
    finally:
        stopped.set()
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("loop", [LOOPS[0], pytest.param(*LOOPS[1].values, id=LOOPS[1].id, marks=pytest.mark.slow)])
@pytest.mark.parametrize("overload", [block_the_loop, burn_processors, nothing])
def test_no_healthy_server_is_ejected_by_overload(
    replicated_cluster: LocalCluster,
    caplog: pytest.LogCaptureFixture,
    loop: collections.abc.Callable[[], asyncio.AbstractEventLoop],
    overload: collections.abc.Callable[[], collections.abc.Awaitable[None]],
) -> None:
    """INVARIANT: silence is ignored while the event loop is late; reads continue on replicas, and throughput recovers.

    The throughput afterwards is compared with that of engines that were not overloaded, as the machine may be busy.
    """
    recorder = Recorder()

    async def play() -> None:
        pool = {"replica_pool_size": 3, "replica_max_overflow": 0}
        async with (
            serving(replicated_cluster, **SETTINGS, **pool, hooks=[recorder]) as servers,
            Monitor(servers.replica),
            serving(replicated_cluster, **SETTINGS, **pool) as rested,
            Monitor(rested.replica),
        ):
            await seconds_for_reads(rested)
            async with clients(servers, 60):
                await overload()
            before = len(recorder.of(SnapshotPublished))
            await until(lambda: len(recorder.of(SnapshotPublished)) > before + 6)  # each server has been probed since
            spent, control = [await seconds_for_reads(servers)], [await seconds_for_reads(rested)]
            while min(spent) >= 2 * min(control) and len(spent) < 50:  # other processes interfere
                spent.append(await seconds_for_reads(servers))
                control.append(await seconds_for_reads(rested))
            assert min(spent) < 2 * min(control)
            assert {await read(servers) for _ in range(20)} <= {
                f"127.0.0.1:{server.port}" for server in replicated_cluster.replicas
            }
            assert servers.replica.snapshot is not None
            assert all(state.up for state in servers.replica.snapshot.servers.values())

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(play())
    assert recorder.of(Ejected) == []
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and "asyncio" not in r.name] == []


async def test_a_silent_server_is_found_though_the_loop_is_often_late(disposable_cluster: LocalCluster) -> None:
    """INVARIANT: a late loop extends the timeout of a server, but not without limit."""
    replica = disposable_cluster.replicas[0]
    settings = {**SETTINGS, "probe_timeout": 0.2}
    async with serving(disposable_cluster, **settings) as servers, Monitor(servers.replica):
        await asyncio.to_thread(replica.freeze)

        def is_down() -> bool:
            time.sleep(0.06)  # longer than a part of the timeout
            snapshot = servers.replica.snapshot
            return snapshot is not None and not snapshot.servers[f"127.0.0.1:{replica.port}"].up

        await until(is_down, seconds=60)


async def test_all_silent_servers_are_down_when_the_loop_is_on_time(disposable_cluster: LocalCluster) -> None:
    """INVARIANT: simultaneous silence of all servers still counts: the network may have failed."""
    async with serving(disposable_cluster, **SETTINGS) as servers, Monitor(servers.replica):
        await asyncio.gather(*(asyncio.to_thread(server.freeze) for server in disposable_cluster.servers))

        def are_down() -> bool:
            snapshot = servers.replica.snapshot
            return snapshot is not None and not any(state.up for state in snapshot.servers.values())

        await until(are_down)


# Protecting the primary


async def test_reads_beyond_the_limit_wait_and_are_refused(disposable_cluster: LocalCluster) -> None:
    """`primary_fallback_limit`: the primary has to handle the writes, even if every replica is gone."""
    recorder = Recorder()
    settings = {**SETTINGS, "primary_fallback_limit": 2, "replica_pool_timeout": 0.2, "hooks": [recorder]}
    for replica in disposable_cluster.replicas:
        await asyncio.to_thread(replica.stop)
    async with serving(disposable_cluster, **settings) as servers, Monitor(servers.replica):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(2):
                session = await stack.enter_async_context(servers.session())
                assert await session.scalar(text("SELECT inet_server_port()")) == disposable_cluster.primary.port
                assert session.decision.cause is Cause.NO_REPLICA_SERVES
            with pytest.raises(NoReplicaAvailable, match="primary_fallback_limit=2") as caught:
                await read(servers)
            assert caught.value.limit == 2
            assert recorder.of(ReadRefused) == [ReadRefused(by="primary_fallback_limit")]
            async with RoutedSession(servers.primary) as writer:
                await writer.execute(text("SELECT 1"))  # writes have no limit
            assert await read_as_core(servers) == disposable_cluster.primary.port
        for _ in range(5):  # released places are available again
            await read(servers)


async def read_as_core(servers: Servers) -> object:
    """Read past the limit, on an engine whose pool the library cannot count."""
    async with servers.primary.connect() as connection:
        return await connection.scalar(text("SELECT inet_server_port()"))


async def test_a_read_that_its_replica_fails_counts_as_well(disposable_cluster: LocalCluster) -> None:
    """It began on a replica; its escalation is caused by a missing replica."""
    settings = {"primary_fallback_limit": 1, "replica_pool_timeout": 0.2}
    async with serving(disposable_cluster, **settings) as servers:
        first, second = servers.session(), servers.session()
        for session in (first, second):
            await session.scalar(text("SELECT 1"))
        for replica in disposable_cluster.replicas:
            await asyncio.to_thread(replica.stop, "immediate")
        assert await first.scalar(text("SELECT inet_server_port()")) == disposable_cluster.primary.port
        with pytest.raises(NoReplicaAvailable):
            await second.scalar(text("SELECT 1"))
        await second.close()
        await first.close()
        async with servers.session() as session:
            assert await session.scalar(text("SELECT inet_server_port()")) == disposable_cluster.primary.port


@not_behind_a_pooler("the error is the pooler's")
async def test_a_place_is_given_back_when_the_primary_cannot_be_reached(disposable_cluster: LocalCluster) -> None:
    """Otherwise reads that never had a connection would use up the limit."""
    settings = {"primary_fallback_limit": 1, "replica_pool_timeout": 0.2}
    for server in disposable_cluster.servers:
        await asyncio.to_thread(server.stop)
    async with serving(disposable_cluster, **settings) as servers:
        for _ in range(3):
            with pytest.raises(UNREACHABLE):
                await read(servers)

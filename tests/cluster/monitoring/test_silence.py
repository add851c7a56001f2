"""Silent servers and connections: whatever waits for them fails soon, and healthy ones are not affected."""

import asyncio
import contextlib
import typing

import pytest
import sqlalchemy.exc
from sqlalchemy import text

from modern_di_replicas import Monitor, RoutedSession
from modern_di_replicas.errors import PrimaryUnavailable
from modern_di_replicas.testing import LocalCluster
from tests.pgbouncer import not_behind_a_pooler
from tests.proxies import SilentProxy
from tests.session.conftest import Servers, serving
from tests.waiting import until


HANGS = text("SELECT pg_sleep(600)")
TAKES_A_WHILE = text("SELECT 7 FROM pg_sleep(1.5)")
SOON = {"probe_interval": 0.1, "probe_timeout": 0.6}


async def port_of_primary(servers: Servers) -> int:
    async with RoutedSession(servers.primary) as session:
        return typing.cast(int, await session.scalar(text("SELECT inet_server_port()")))


async def started(servers: Servers, statement: str) -> None:
    query = f"SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '{statement}%'"  # noqa: S608

    async def has_started() -> bool:  # in threads: this loop must keep running
        answers = await asyncio.gather(*(asyncio.to_thread(one.execute, query) for one in servers.cluster.servers))
        return "t" in answers

    await until(has_started)


@not_behind_a_pooler("the connection to the server is the pooler's")
async def test_if_a_connection_to_the_primary_is_silent_and_a_new_one_works_all_are_replaced(
    replicated_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """INVARIANT: a NAT or proxy that lost its state drops packets; a write in flight would wait minutes for TCP."""
    primary = replicated_cluster.primary
    async with SilentProxy.before(primary.port) as proxy:
        settings: dict[str, typing.Any] = {"primary": proxy.url(primary.url), **SOON}
        async with serving(replicated_cluster, **settings) as servers, Monitor(servers.replica):
            async with RoutedSession(servers.primary) as session:
                held = asyncio.ensure_future(session.execute(HANGS))
                await started(servers, "SELECT pg_sleep(600)")
                proxy.forget()
                async with asyncio.timeout(30):
                    with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
                        await held
                assert caught.value.connection_invalidated
            assert await port_of_primary(servers) == primary.port
            snapshot = servers.replica.snapshot
            assert snapshot is not None
            assert snapshot.primary == f"127.0.0.1:{proxy.port}", "one that answers is not declared down"
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%'"
        await asyncio.to_thread(primary.execute, f"{query} AND pid <> pg_backend_pid()")
    assert "was silent, and a new one works" in caplog.text


@not_behind_a_pooler("the connection to the server is the pooler's")
async def test_a_read_on_a_silent_connection_to_a_replica_is_run_again(replicated_cluster: LocalCluster) -> None:
    """The replica is healthy and its connections are not: the read is run again, and the replica stays in use."""
    replica = replicated_cluster.replicas[0]
    async with SilentProxy.before(replica.port) as proxy:
        settings: dict[str, typing.Any] = {"replicas": [proxy.url(replica.url)], **SOON}
        async with serving(replicated_cluster, **settings) as servers, Monitor(servers.replica):
            async with servers.session() as session:
                held = asyncio.ensure_future(session.scalar(TAKES_A_WHILE))
                await started(servers, "SELECT 7 FROM pg_sleep")
                proxy.forget()  # the answer never arrives
                async with asyncio.timeout(30):
                    assert await held == 7

            async def is_read_from() -> bool:
                async with servers.session() as session:
                    return bool(await session.scalar(text("SELECT inet_server_port()")) == replica.port)

            await until(is_read_from)


async def test_a_frozen_primary_holds_writers_only_until_it_is_down(disposable_cluster: LocalCluster) -> None:
    """INVARIANT: current and new writers soon get a clear error; readers are not affected."""
    settings: dict[str, typing.Any] = {**SOON, "primary_pool_timeout": 60, "connect_timeout": 60}
    async with serving(disposable_cluster, **settings) as servers, Monitor(servers.replica):
        primary = disposable_cluster.primary
        sessions = [RoutedSession(servers.primary) for _ in range(2)]
        for session in sessions:
            await session.execute(text("SELECT 1"))
        await asyncio.to_thread(primary.freeze)
        async with asyncio.timeout(30):
            opening = asyncio.ensure_future(port_of_primary(servers))  # connecting takes up to `connect_timeout`
            under_way = [asyncio.ensure_future(session.execute(text("SELECT 2"))) for session in sessions]
            for statement in under_way:
                with pytest.raises(sqlalchemy.exc.DBAPIError):
                    await statement
            with pytest.raises(PrimaryUnavailable):
                await opening
            coming = await asyncio.gather(*(port_of_primary(servers) for _ in range(40)), return_exceptions=True)
            assert {type(error) for error in coming} == {PrimaryUnavailable}
            assert "does not answer the monitor" in str(coming[0])
            async with servers.session() as session:
                assert await session.scalar(text("SELECT pg_is_in_recovery()"))
        for session in sessions:
            await session.close()
        await asyncio.to_thread(primary.thaw)

        async def is_written() -> bool:
            with contextlib.suppress(PrimaryUnavailable):
                return await port_of_primary(servers) == primary.port
            return False

        await until(is_written)


async def test_a_primary_that_answers_an_application_is_not_refused(replicated_cluster: LocalCluster) -> None:
    """The monitor may be wrong, for example with a wrong `probe_url`: a live connection counts."""
    async with serving(replicated_cluster) as servers:
        servers.primary.declare_down(timeout=60)
        first = await asyncio.gather(*(port_of_primary(servers) for _ in range(2)), return_exceptions=True)
        assert replicated_cluster.primary.port in first, "one is let through, and it gets an answer"
        assert await port_of_primary(servers) == replicated_cluster.primary.port


async def test_a_connection_to_a_silent_address_fails_with_the_reason(replicated_cluster: LocalCluster) -> None:
    """Nothing answers there, and the monitor knows: the error links to its page."""
    async with SilentProxy.before(replicated_cluster.primary.port) as proxy:
        proxy.cut()
        settings: dict[str, typing.Any] = {"primary": proxy.url(replicated_cluster.primary.url)}
        async with serving(replicated_cluster, **settings) as servers:
            for timeout in (0.2, 0.6):
                servers.primary.declare_down(timeout=timeout)
                with pytest.raises(PrimaryUnavailable, match="primary-unavailable"):
                    await port_of_primary(servers)
            servers.primary.declare_up()

"""One host name for several replicas: a proxy, or the reader endpoint of a managed service."""

import asyncio
import collections.abc
import contextlib
import typing

import pytest
from sqlalchemy import make_url, text

from modern_di_replicas import Monitor, NoReplicaAvailable, RoutedSession, SessionFactory
from modern_di_replicas.testing import LocalCluster
from tests.pgbouncer import not_behind_a_pooler
from tests.proxies import SilentProxy
from tests.session.conftest import Servers, serving
from tests.waiting import until


REPLACED = "was silent, and a new one works"


async def read_after_write(servers: Servers) -> object:
    async with RoutedSession(servers.primary) as session:
        await session.execute(text("INSERT INTO written DEFAULT VALUES"))
        await session.commit()
        count = await session.scalar(text("SELECT count(*) FROM written"))
    token = servers.replica.topology.own_write
    assert token is not None
    async with RoutedSession(servers.replica.choose(after=token), primary=servers.primary) as session:
        assert await session.scalar(text("SELECT count(*) FROM written")) == count
        return session.decision.server


@not_behind_a_pooler("it keeps its connections through the endpoint")
@pytest.mark.parametrize("at_the_start", [True, False])
async def test_a_client_sees_its_write_behind_a_reader_endpoint(
    disposable_cluster: LocalCluster, caplog: pytest.LogCaptureFixture, at_the_start: bool
) -> None:
    """INVARIANT: if one server behind a name has the write, the next connection may still lead to another one."""
    primary, first, second = disposable_cluster.servers
    primary.execute("CREATE TABLE written (n serial PRIMARY KEY)")
    disposable_cluster.catch_up()
    await asyncio.to_thread(second.restart)  # the younger one
    async with SilentProxy.before(second.port) as proxy:
        if at_the_start:
            proxy.targets = [second.port, first.port]
        url = make_url(proxy.url(second.url)).set(host="localhost" if at_the_start else "127.0.0.1")
        settings: dict[str, typing.Any] = {
            "replicas": [url.render_as_string(hide_password=False)],
            "probe_interval": 0.1,
        }
        async with serving(disposable_cluster, **settings) as servers, Monitor(servers.replica):
            if not at_the_start:
                proxy.targets = [first.port]  # its next connection leads to the other one
                proxy.forget()
            await until(lambda: "leads to several servers" in caplog.text)
            for target in (second, first):  # at least one of these leads to another server again
                proxy.targets = [target.port]
                replaced = caplog.text.count(REPLACED)
                proxy.forget()
                await until(lambda replaced=replaced: caplog.text.count(REPLACED) > replaced)  # type: ignore[misc]  # a default of a lambda
            await asyncio.to_thread(first.pause_replay)
            for _ in range(10):
                assert await read_after_write(servers) == "primary"
            async with servers.session() as session:  # reads without a freshness requirement are served there
                await session.execute(text("SELECT 1"))
                assert session.decision.server != "primary"
    assert caplog.text.count("leads to several servers") == 1


@contextlib.asynccontextmanager
async def endpoint(
    cluster: LocalCluster, *targets: int, **settings: typing.Any
) -> collections.abc.AsyncIterator[tuple[SilentProxy, Servers]]:
    """Yield the servers behind a shared host name, and its proxy."""
    primary, _, second = cluster.servers
    primary.execute("CREATE TABLE IF NOT EXISTS written (n serial PRIMARY KEY)")
    cluster.catch_up()
    async with SilentProxy.before(second.port) as proxy:
        url = make_url(proxy.url(second.url)).set(host="localhost").render_as_string(hide_password=False)
        async with serving(cluster, replicas=[url], **settings) as servers, Monitor(servers.replica):
            positions = servers.replica.topology.positions
            positions.several.add(servers.settings.servers[0].label)
            positions.reached.clear()
            proxy.targets = list(targets)
            yield proxy, servers


@not_behind_a_pooler("it keeps its connections through the endpoint")
async def test_a_connection_that_leads_to_a_fresh_server_is_used(disposable_cluster: LocalCluster) -> None:
    """Each session asks on its own connection: behind the name, one server has the write and the other does not."""
    _, first, second = disposable_cluster.servers
    async with endpoint(disposable_cluster, second.port) as (proxy, servers):
        await asyncio.to_thread(first.pause_replay)
        label = servers.settings.servers[0].label

        async def is_served() -> bool:
            return await read_after_write(servers) == label

        await until(is_served)  # a replica receives the write shortly after it
        proxy.targets = [first.port]
        proxy.forget()
        await servers.replica.engines[label].dispose()
        assert [await read_after_write(servers) for _ in range(3)] == ["primary"] * 3


@not_behind_a_pooler("it keeps its connections through the endpoint")
async def test_siblings_of_a_unit_of_work_ask_for_the_same(disposable_cluster: LocalCluster) -> None:
    """Each session has its own connection."""
    _, first, second = disposable_cluster.servers
    async with endpoint(disposable_cluster, second.port) as (proxy, servers):
        await asyncio.to_thread(first.pause_replay)
        label = servers.settings.servers[0].label

        async def sibling_reads() -> str:
            async with RoutedSession(servers.primary) as session:
                await session.execute(text("INSERT INTO written DEFAULT VALUES"))
                await session.commit()
            token = servers.replica.topology.own_write
            async with RoutedSession(servers.replica.choose(after=token), primary=servers.primary) as session:
                sessions = SessionFactory(session)
                await session.scalar(text("SELECT 1"))
                if session.decision.server != label:
                    return "not yet"
                proxy.targets = [first.port]  # the target of the next connection
                async with sessions() as sibling:
                    await sibling.scalar(text("SELECT 1"))
                    return sibling.decision.server

        found: list[str] = []

        async def has_read_from_it() -> bool:
            found.append(await sibling_reads())
            return found[-1] != "not yet"

        await until(has_read_from_it)
        assert found[-1] == "primary"


async def test_a_server_with_an_unknown_position_is_not_fresh(
    disposable_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a managed server, or lost: the primary reads, and no error is raised."""
    *_, second = disposable_cluster.servers
    async with endpoint(disposable_cluster, second.port) as (_, servers):
        question = "modern_di_replicas.cluster.engines.read_connections.about_server"
        monkeypatch.setattr(question, lambda *_, **__: "SELECT no_such_function()")
        assert await read_after_write(servers) == "primary"


@not_behind_a_pooler("it keeps its connections through the endpoint")
async def test_a_unit_of_work_that_has_read_does_not_go_back_in_time(disposable_cluster: LocalCluster) -> None:
    """INVARIANT: after a lost connection, the next one may lead to an older server."""
    _, first, second = disposable_cluster.servers
    async with endpoint(disposable_cluster, second.port) as (proxy, servers):
        await asyncio.to_thread(first.pause_replay)
        async with servers.session() as session:
            pid = await session.scalar(text("SELECT pg_backend_pid()"))
            proxy.targets = [first.port]
            await asyncio.to_thread(second.execute, f"SELECT pg_terminate_backend({pid})")
            assert await session.scalar(text("SELECT pg_is_in_recovery()")) is False
            assert session.decision.server == "primary"


@not_behind_a_pooler("it keeps its connections through the endpoint")
async def test_a_connection_that_is_behind_is_refused_where_the_primary_is_not_to_read(
    disposable_cluster: LocalCluster,
) -> None:
    """`primary_reads=False` has no exception."""
    _, first, _ = disposable_cluster.servers
    async with endpoint(disposable_cluster, first.port, primary_reads=False) as (_, servers):
        await servers.replica.engines[servers.settings.servers[0].label].dispose()
        await asyncio.to_thread(first.pause_replay)
        with pytest.raises(NoReplicaAvailable):
            await read_after_write(servers)


async def test_a_host_name_of_one_server_is_not_a_reader_endpoint(
    replicated_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Most names lead to one server."""
    url = make_url(replicated_cluster.replicas[0].url).set(host="localhost").render_as_string(hide_password=False)
    async with serving(replicated_cluster, replicas=[url]) as servers, Monitor(servers.replica):
        assert servers.replica.topology.positions.reached
    assert "several servers" not in caplog.text


async def test_a_host_name_that_does_not_answer_gets_no_further_probes(replicated_cluster: LocalCluster) -> None:
    """It is down; nothing else is known."""
    url = make_url(replicated_cluster.replicas[0].url).set(host="localhost", port=1)
    replicas = [url.render_as_string(hide_password=False)]
    async with serving(replicated_cluster, replicas=replicas) as servers, Monitor(servers.replica):
        assert servers.replica.topology.positions.several == set()

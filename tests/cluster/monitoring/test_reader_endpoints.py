"""One name for several replicas: a proxy, or the reader endpoint of a managed service."""

import asyncio
import typing

import pytest
from sqlalchemy import make_url, text

from modern_di_replicas import Monitor, RoutedSession
from modern_di_replicas.testing import LocalCluster
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


@pytest.mark.parametrize("at_the_start", [True, False])
async def test_a_client_sees_its_write_behind_a_reader_endpoint(
    disposable_cluster: LocalCluster, caplog: pytest.LogCaptureFixture, at_the_start: bool
) -> None:
    """INVARIANT: that one of the servers behind a name has the write says nothing of the next connection."""
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
            async with servers.session() as session:  # what need not be fresh is read there
                await session.execute(text("SELECT 1"))
                assert session.decision.server != "primary"
    assert caplog.text.count("leads to several servers") == 1


async def test_a_name_of_one_server_is_no_reader_endpoint(
    replicated_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Most names are."""
    url = make_url(replicated_cluster.replicas[0].url).set(host="localhost").render_as_string(hide_password=False)
    async with serving(replicated_cluster, replicas=[url]) as servers, Monitor(servers.replica):
        assert servers.replica.topology.positions.reached
    assert "several servers" not in caplog.text


async def test_a_name_that_does_not_answer_is_not_looked_behind(replicated_cluster: LocalCluster) -> None:
    """It is down, and that is all that is known."""
    url = make_url(replicated_cluster.replicas[0].url).set(host="localhost", port=1)
    replicas = [url.render_as_string(hide_password=False)]
    async with serving(replicated_cluster, replicas=replicas) as servers, Monitor(servers.replica):
        assert servers.replica.topology.positions.several == set()

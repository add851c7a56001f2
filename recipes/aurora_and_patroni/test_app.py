import asyncio
import collections.abc
import contextlib
import typing

import pytest
from modern_di import Container, Scope
from sqlalchemy import exc, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession

from modern_di_replicas import Dependencies, Intent, Monitor, ReplicaEngine, ReplicationSettings
from modern_di_replicas.testing import LocalCluster, LocalServer
from recipes.aurora_and_patroni.app import (
    aurora,
    main,
    patroni_behind_a_proxy,
    patroni_members,
    rds_or_cloud_sql,
    servers,
)
from tests.waiting import until


class Proxy:
    """An endpoint that leads to one server at a time; when it is switched, it closes the sessions to the former one."""

    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> typing.Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = self._at(self._listener.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def turn(self, server: LocalServer) -> None:
        """Switch to another server, as HAProxy does with `on-marked-down shutdown-sessions`."""
        self._server = server
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    def _at(self, port: int) -> str:
        return make_url(self._server.url).set(port=port).render_as_string(hide_password=False)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(self._server.host, self._server.port)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, server_writer}
        for source, sink in ((reader, server_writer), (server_reader, writer)):
            self._tasks.add(asyncio.create_task(self._pump(source, sink)))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()


@contextlib.asynccontextmanager
async def watched(settings: ReplicationSettings) -> collections.abc.AsyncIterator[Container]:
    async with (
        Container(groups=[Dependencies], context={ReplicationSettings: settings}) as container,
        Monitor(container.resolve(ReplicaEngine)),
    ):
        yield container


async def port_of(container: Container, intent: Intent) -> int:
    """Return the port of the server that ran a unit of work; a write changes a row."""
    async with container.build_child_container(scope=Scope.REQUEST, context={Intent: intent}) as unit_of_work:
        session = unit_of_work.resolve(AsyncSession)
        if intent.is_write:
            await session.execute(text("CREATE TABLE IF NOT EXISTS written (n int)"))
            await session.execute(text("INSERT INTO written VALUES (1)"))
        port = await session.scalar(text("SELECT inet_server_port()"))
        await session.commit()
        return typing.cast(int, port)


async def port_of_next_write(container: Container) -> int:
    """Retry while there is no primary; an application decides about retries itself."""
    ports: list[int] = []

    async def is_written() -> bool:
        with contextlib.suppress(exc.DBAPIError, OSError):
            ports.append(await port_of(container, Intent.write()))
        return bool(ports)

    await until(is_written)
    return ports[0]


async def reads_reach(container: Container, expected: set[int]) -> None:
    """Wait until exactly these servers serve reads.

    A read fails if its replica restarts just when the connections to the former primary are closed.
    """

    async def are_reached() -> bool:
        with contextlib.suppress(exc.DBAPIError, OSError):
            return {await port_of(container, Intent.read()) for _ in range(6)} == expected
        return False

    await until(are_reached)


async def test_an_endpoint_that_follows_the_primary_is_followed(disposable_cluster: LocalCluster) -> None:
    """A switchover: the primary stops, a replica is promoted, the endpoint is switched, the former primary returns."""
    former, promoted, standby = disposable_cluster.servers
    async with Proxy(former) as proxy:
        settings = patroni_behind_a_proxy(proxy.url, [server.url for server in disposable_cluster.servers])
        async with watched(settings) as container:
            assert await port_of(container, Intent.write()) == former.port
            disposable_cluster.catch_up()
            await reads_reach(container, {promoted.port, standby.port})

            await asyncio.to_thread(former.stop)
            await asyncio.to_thread(promoted.promote)
            proxy.turn(promoted)
            assert await port_of_next_write(container) == promoted.port
            await asyncio.to_thread(standby.follow, promoted)
            await asyncio.to_thread(former.follow, promoted)
            await reads_reach(container, {former.port, standby.port})
            assert await port_of(container, Intent.write()) == promoted.port


async def test_a_server_that_only_the_endpoint_knows_is_followed_too(disposable_cluster: LocalCluster) -> None:
    """A managed service replaces the primary behind its address by an undeclared server."""
    former, unknown, standby = disposable_cluster.servers
    async with Proxy(former) as proxy, watched(rds_or_cloud_sql(proxy.url, [standby.url])) as container:
        assert await port_of(container, Intent.write()) == former.port

        await asyncio.to_thread(former.stop)
        await asyncio.to_thread(unknown.promote)
        proxy.turn(unknown)
        assert await port_of_next_write(container) == unknown.port
        await asyncio.to_thread(standby.follow, unknown)
        await reads_reach(container, {standby.port})


async def test_a_former_primary_that_lives_on_gets_no_write_when_the_proxy_ends_its_sessions(
    disposable_cluster: LocalCluster,
) -> None:
    """INVARIANT: a row written there would be lost; the former primary still accepts connections."""
    former, promoted, standby = disposable_cluster.servers
    async with Proxy(former) as proxy, watched(rds_or_cloud_sql(proxy.url, [standby.url])) as container:
        assert await port_of(container, Intent.write()) == former.port

        await asyncio.to_thread(promoted.promote)
        proxy.turn(promoted)

        assert {await port_of_next_write(container) for _ in range(10)} == {promoted.port}
        assert former.execute("SELECT count(*) FROM written") == "1"


async def test_members_may_be_listed_in_any_order(disposable_cluster: LocalCluster) -> None:
    """The search for the primary starts at the first one."""
    primary, first, second = disposable_cluster.servers
    async with watched(patroni_members([first.url, primary.url, second.url])) as container:
        assert await port_of(container, Intent.write()) == primary.port
        await reads_reach(container, {first.port, second.port})

        await asyncio.to_thread(primary.stop)
        await asyncio.to_thread(second.promote)
        assert await port_of_next_write(container) == second.port


@pytest.mark.parametrize("configure", [patroni_behind_a_proxy, rds_or_cloud_sql, aurora])
async def test_writes_go_to_the_primary_and_reads_to_a_replica(
    database: ReplicationSettings, configure: typing.Callable[[str, list[str]], ReplicationSettings]
) -> None:
    """On PostgreSQL's own replication: for the services themselves, it only proves that the settings are valid."""
    found = await servers(configure(database.declared_primary.url, [replica.url for replica in database.servers]))

    assert found["write"] == address(database.declared_primary.url)
    assert found["read"] in {address(replica.url) for replica in database.servers}


async def test_the_program_says_where_reads_and_writes_go(
    database: ReplicationSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As run from a shell."""
    only = database.servers[0].url
    monkeypatch.setenv("PRIMARY_URL", database.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", only)

    await main()

    expected = [f"A write goes to {address(database.declared_primary.url)}.", f"A read goes to {address(only)}."]
    assert capsys.readouterr().out.splitlines() == expected


def address(url: str) -> str:
    parsed = make_url(url)
    return f"{parsed.host}:{parsed.port}"

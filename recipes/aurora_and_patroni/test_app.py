import asyncio
import contextlib
import typing

import pytest
from modern_di import Container, Scope
from sqlalchemy import exc, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession

from modern_di_replicas import Dependencies, Intent, Monitor, ReplicaEngine, ReplicationSettings
from modern_di_replicas.testing import LocalCluster, LocalServer
from recipes.aurora_and_patroni.app import aurora, behind_a_proxy, patroni_members, rds_or_cloud_sql


class Proxy:
    """An endpoint that leads to one server, and can be turned to another; connections under way stay where they are."""

    def __init__(self, server: LocalServer) -> None:
        self.leads_to = server
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> typing.Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self.leads_to.port)
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, there[1]), (there[0], writer)):
            self._tasks.add(asyncio.create_task(self._pump(source, sink)))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    def url(self) -> str:
        return make_url(self.leads_to.url).set(port=self.port).render_as_string(hide_password=False)


async def place(container: Container, *, intent: Intent) -> int:
    """Return the port of the server that ran a unit of work; one that writes really writes."""
    async with container.build_child_container(scope=Scope.REQUEST, context={Intent: intent}) as unit_of_work:
        session = unit_of_work.resolve(AsyncSession)
        if intent.is_write:
            await session.execute(text("CREATE TABLE IF NOT EXISTS written (n int)"))
            await session.execute(text("INSERT INTO written VALUES (1)"))
        port = await session.scalar(text("SELECT inet_server_port()"))
        await session.commit()
        return port or 0


async def place_of_next_write(container: Container) -> int:
    async with asyncio.timeout(30):
        while True:
            try:
                return await place(container, intent=Intent.write())
            except (exc.DBAPIError, OSError):
                await asyncio.sleep(0.05)


async def test_an_endpoint_that_follows_the_primary_is_followed(disposable_cluster: LocalCluster) -> None:
    """The former primary stops, another is promoted, the endpoint is turned: writes arrive, with no restart."""
    primary, first, second = disposable_cluster.servers
    async with Proxy(primary) as proxy:
        settings = behind_a_proxy(proxy.url(), [first.url, second.url])
        async with (
            Container(groups=[Dependencies], context={ReplicationSettings: settings}) as container,
            Monitor(container.resolve(ReplicaEngine)),
        ):
            assert await place(container, intent=Intent.write()) == primary.port
            disposable_cluster.catch_up()
            await asyncio.to_thread(primary.stop)
            await asyncio.to_thread(first.promote)
            proxy.leads_to = first
            assert await place_of_next_write(container) == first.port
            await asyncio.to_thread(second.follow, first)
            async with asyncio.timeout(30):
                while await place(container, intent=Intent.read()) != second.port:
                    pass


async def test_members_may_be_listed_in_any_order(replicated_cluster: LocalCluster) -> None:
    """The first one is only where the search for the primary begins."""
    primary, first, second = replicated_cluster.servers
    settings = patroni_members([first.url, primary.url, second.url])
    async with (
        Container(groups=[Dependencies], context={ReplicationSettings: settings}) as container,
        Monitor(container.resolve(ReplicaEngine)),
    ):
        async with container.build_child_container(scope=Scope.REQUEST) as unit_of_work:
            place_of_write = await unit_of_work.resolve(AsyncSession).scalar(text("SELECT inet_server_port()"))
        assert place_of_write == primary.port
        assert {await place(container, intent=Intent.read()) for _ in range(6)} == {first.port, second.port}


@pytest.mark.parametrize("configure", [rds_or_cloud_sql, aurora])
def test_the_settings_are_accepted(configure: typing.Callable[[str, list[str]], ReplicationSettings]) -> None:
    """Not more than that: there is no such service here to try."""
    settings = configure(
        "postgresql+asyncpg://app:secret@cluster.example/shop",
        ["postgresql+asyncpg://app:secret@reader-1.example/shop"],
    )

    assert [replica.label for replica in settings.servers] == ["reader-1.example:5432"]

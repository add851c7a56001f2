import asyncio
import collections.abc
import contextlib
import typing

import httpx
import litestar
import pytest
from modern_di_litestar import fetch_di_container

from modern_di_replicas import PrimaryEngine, ReplicationSettings
from modern_di_replicas.testing import LocalCluster, RoutingLog
from recipes.litestar_app.app import Base, main


EMMA = {"title": "Emma", "author": "Jane Austen", "copies": 3}


@pytest.fixture
def app(database: ReplicationSettings, monkeypatch: pytest.MonkeyPatch) -> litestar.Litestar:
    monkeypatch.setenv("PRIMARY_URL", database.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replica.url for replica in database.servers))
    return main()


@contextlib.asynccontextmanager
async def running(app: litestar.Litestar) -> collections.abc.AsyncIterator[None]:
    """Run the lifespan in a separate task: Litestar's has to be left in the task that entered it."""
    started, stopping = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        async with app.lifespan():
            started.set()
            await stopping.wait()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run())
        await started.wait()
        yield
        stopping.set()


@pytest.fixture
async def client(
    app: litestar.Litestar, replicated_cluster: LocalCluster, routing_log: RoutingLog
) -> collections.abc.AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(typing.cast(typing.Any, app))
    async with running(app), httpx.AsyncClient(transport=transport, base_url="http://library") as client:
        async with fetch_di_container(app).resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        (await client.post("/books", json=EMMA)).raise_for_status()
        replicated_cluster.catch_up()
        client.cookies.clear()  # from here on another client, without writes
        routing_log.clear()
        yield client


async def test_a_get_reads_a_replica(client: httpx.AsyncClient, routing_log: RoutingLog) -> None:
    """Consecutive requests alternate between the two replicas."""
    answers = [(await client.get("/books/1")).json() for _ in range(2)]

    assert answers == [{"id": 1, **EMMA}] * 2
    assert sorted(routing_log.servers) == ["replica-1", "replica-2"]


async def test_a_post_writes_the_primary(client: httpx.AsyncClient, routing_log: RoutingLog) -> None:
    """Both the search for the author and the insertion of the book happen there."""
    response = await client.post("/books", json={"title": "Persuasion", "author": "Jane Austen"})

    assert response.json() == {"id": 2, "title": "Persuasion", "author": "Jane Austen", "copies": 1}
    assert set(routing_log.servers) == {"primary"}


async def test_a_post_that_only_reads_uses_a_replica(client: httpx.AsyncClient, routing_log: RoutingLog) -> None:
    """With `@read_intent`, which takes precedence over the method."""
    response = await client.post("/books/search", json={"words": "em"})

    assert [book["title"] for book in response.json()] == ["Emma"]
    assert routing_log.servers in (["replica-1"], ["replica-2"])


async def test_a_controller_can_be_sent_to_the_primary(client: httpx.AsyncClient, routing_log: RoutingLog) -> None:
    """With `opt = {"intent": Intent.write()}`, which applies to all its handlers."""
    assert (await client.get("/desk/books/1")).json()["copies"] == 3
    assert routing_log.servers == ["primary"]


async def test_an_unknown_book_is_not_found(client: httpx.AsyncClient) -> None:
    """On a replica and at the desk."""
    assert (await client.get("/books/9")).status_code == 404
    assert (await client.get("/desk/books/9")).status_code == 404

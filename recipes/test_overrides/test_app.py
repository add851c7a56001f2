"""Fixtures to copy: every request of the application runs in one transaction, which is rolled back."""

import collections.abc

import fastapi
import httpx
import pytest
from modern_di_fastapi import fetch_di_container
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from modern_di_replicas import PrimaryEngine, ReplicationSettings
from modern_di_replicas.testing import RoutingLog, rolled_back
from recipes.test_overrides.app import Base, Task, main


@pytest.fixture
async def app(
    database: ReplicationSettings, monkeypatch: pytest.MonkeyPatch
) -> collections.abc.AsyncIterator[fastapi.FastAPI]:
    """Yield the started application with its tables."""
    monkeypatch.setenv("PRIMARY_URL", database.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replica.url for replica in database.servers))
    app = main()
    async with app.router.lifespan_context(app):
        async with fetch_di_container(app).resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield app


@pytest.fixture
async def connection(app: fastapi.FastAPI) -> collections.abc.AsyncIterator[AsyncConnection]:
    """Yield the connection for all requests of a test, reads and writes; it is rolled back."""
    async with rolled_back(fetch_di_container(app)) as connection:
        yield connection


@pytest.fixture
async def client(app: fastapi.FastAPI, connection: AsyncConnection) -> collections.abc.AsyncIterator[httpx.AsyncClient]:  # noqa: ARG001  # its requests run there
    """Yield a client."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://todo") as client:
        yield client


async def test_a_task_is_listed_once_it_is_added(client: httpx.AsyncClient, routing_log: RoutingLog) -> None:
    """The GET sees the write of the POST at once: there is one connection, and no replica to wait for."""
    (await client.post("/tasks", params={"title": "Write tests"})).raise_for_status()

    assert (await client.get("/tasks")).json() == ["Write tests"]
    routing_log.assert_only_primary()


async def test_every_test_begins_with_an_empty_list(client: httpx.AsyncClient) -> None:
    """The changes of other tests were rolled back."""
    assert (await client.get("/tasks")).json() == []


async def test_a_task_with_the_same_title_is_refused(client: httpx.AsyncClient) -> None:
    """The session's rollback undoes only the second task, as in production."""
    responses = [await client.post("/tasks", params={"title": "Write tests"}) for _ in range(2)]

    assert [response.status_code for response in responses] == [201, 409]
    assert (await client.get("/tasks")).json() == ["Write tests"]


async def test_other_connections_do_not_see_what_a_test_writes(
    client: httpx.AsyncClient, connection: AsyncConnection, database: ReplicationSettings
) -> None:
    """A request's commit stays inside the test's transaction."""
    await client.post("/tasks", params={"title": "Write tests"})
    count = select(func.count()).select_from(Task)

    other = create_async_engine(database.declared_primary.url)
    async with other.connect() as outside:
        assert await outside.scalar(count) == 0
    await other.dispose()
    assert await connection.scalar(count) == 1

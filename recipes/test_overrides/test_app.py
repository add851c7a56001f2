"""The fixtures to copy: an application whose every request runs in one transaction, which is rolled back."""

import collections.abc
import typing

import fastapi
import httpx
import pytest
from modern_di_fastapi import fetch_di_container
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from modern_di_replicas import PrimaryEngine, ReplicationSettings
from recipes.test_overrides.app import AppDependencies, Base, Task, main


@pytest.fixture
async def app(
    database: ReplicationSettings, monkeypatch: pytest.MonkeyPatch
) -> collections.abc.AsyncIterator[fastapi.FastAPI]:
    """Give the application, started, with its tables."""
    monkeypatch.setenv("PRIMARY_URL", database.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replica.url for replica in database.servers))
    app = main()
    async with app.router.lifespan_context(app):
        async with fetch_di_container(app).resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield app


@pytest.fixture
async def connection(app: fastapi.FastAPI) -> collections.abc.AsyncIterator[AsyncConnection]:
    """Give a connection to the primary in a transaction that nobody else sees and nothing survives."""
    async with fetch_di_container(app).resolve(PrimaryEngine).connect() as connection:
        transaction = await connection.begin()
        # In a savepoint, a session commits and rolls back savepoints of its own instead of the transaction.
        await connection.begin_nested()
        yield connection
        await transaction.rollback()


@pytest.fixture
async def client(app: fastapi.FastAPI, connection: AsyncConnection) -> collections.abc.AsyncIterator[httpx.AsyncClient]:
    """Give a client whose requests, reads and writes alike, all run on that connection."""
    transport = httpx.ASGITransport(app)
    with fetch_di_container(app).override(AppDependencies.engine, typing.cast(AsyncEngine, connection)):
        async with httpx.AsyncClient(transport=transport, base_url="http://todo") as client:
            yield client


async def test_a_task_is_listed_once_it_is_added(client: httpx.AsyncClient, visits: list[str]) -> None:
    """The GET sees what the POST wrote, at once: there is one connection and no replica to wait for."""
    (await client.post("/tasks", params={"title": "Write tests"})).raise_for_status()

    assert (await client.get("/tasks")).json() == ["Write tests"]
    assert set(visits) == {"primary"}


async def test_every_test_begins_with_an_empty_list(client: httpx.AsyncClient) -> None:
    """Whatever other tests added was rolled back."""
    assert (await client.get("/tasks")).json() == []


async def test_a_task_with_the_same_title_is_refused(client: httpx.AsyncClient) -> None:
    """The session's rollback takes back the second task only, as it would in production."""
    responses = [await client.post("/tasks", params={"title": "Write tests"}) for _ in range(2)]

    assert [response.status_code for response in responses] == [201, 409]
    assert (await client.get("/tasks")).json() == ["Write tests"]


async def test_nobody_else_sees_what_a_test_writes(
    app: fastapi.FastAPI, client: httpx.AsyncClient, connection: AsyncConnection
) -> None:
    """What a request commits is in the test's transaction, and in no other."""
    await client.post("/tasks", params={"title": "Write tests"})
    count = select(func.count()).select_from(Task)

    async with fetch_di_container(app).resolve(PrimaryEngine).connect() as other:
        assert await other.scalar(count) == 0
    assert await connection.scalar(count) == 1

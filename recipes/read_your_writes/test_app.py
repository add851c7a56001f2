import asyncio
import collections.abc
import contextlib

import fastapi
import httpx
import pytest
from modern_di_fastapi import fetch_di_container
from sqlalchemy import insert

from modern_di_replicas import PrimaryEngine
from modern_di_replicas.testing import LocalCluster, RoutingLog
from recipes.read_your_writes.app import Base, Reader, main


ADA, GRACE = 1, 2


@contextlib.contextmanager
def paused(cluster: LocalCluster) -> collections.abc.Iterator[None]:
    """Pause the replay of the replicas, only in a separate cluster: other tests need theirs."""
    cluster.catch_up()
    for replica in cluster.replicas:
        replica.pause_replay()
    try:
        yield
    finally:
        for replica in cluster.replicas:
            replica.resume_replay()


@pytest.fixture(params=["unsigned", "signed"])
async def app(
    request: pytest.FixtureRequest, disposable_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> collections.abc.AsyncIterator[fastapi.FastAPI]:
    monkeypatch.setenv("PRIMARY_URL", disposable_cluster.primary.url)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replica.url for replica in disposable_cluster.replicas))
    if request.param == "signed":
        monkeypatch.setenv("TOKEN_SECRETS", "the one before,the present one")
    app = main()
    async with app.router.lifespan_context(app):
        async with fetch_di_container(app).resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(insert(Reader), [{"id": ADA, "name": "Ada"}, {"id": GRACE, "name": "Grace"}])
        yield app


def client_of(app: fastapi.FastAPI) -> httpx.AsyncClient:
    """Return a client with separate cookies."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://magazine")


async def texts(client: httpx.AsyncClient, path: str) -> list[str]:
    return [comment["text"] for comment in (await client.get(path)).json()]


async def test_a_writer_sees_its_comment_and_replicas_serve_all_others(
    app: fastapi.FastAPI, disposable_cluster: LocalCluster, routing_log: RoutingLog
) -> None:
    """While the replay is paused, only the primary has the comment; afterwards replicas serve the writer again."""
    comments = f"/readers/{ADA}/comments"
    async with client_of(app) as writer, client_of(app) as other:
        with paused(disposable_cluster):
            (await writer.post(comments, params={"text": "First!"})).raise_for_status()
            routing_log.clear()
            assert await texts(writer, comments) == ["First!"]
            assert set(routing_log.servers) == {"primary"}

            routing_log.clear()
            assert await texts(other, comments) == []
            assert routing_log.servers in (["replica-1"], ["replica-2"])

        await asyncio.to_thread(disposable_cluster.catch_up)
        routing_log.clear()
        assert await texts(writer, comments) == ["First!"]
        assert routing_log.servers in (["replica-1"], ["replica-2"])


async def test_each_read_is_as_fresh_as_it_says(
    app: fastapi.FastAPI, disposable_cluster: LocalCluster, routing_log: RoutingLog
) -> None:
    """One client right after its write: neither the feed nor the dashboard uses the primary."""
    async with client_of(app) as writer, client_of(app) as other:
        with paused(disposable_cluster):
            (await writer.post(f"/readers/{ADA}/comments", params={"text": "First!"})).raise_for_status()
            (await writer.post(f"/readers/{ADA}/payments", params={"cents": 500})).raise_for_status()
            routing_log.clear()
            assert await texts(writer, "/feed") == []
            assert (await writer.get("/dashboard")).json() == 0
            assert "primary" not in routing_log.servers

            routing_log.clear()
            assert (await other.get(f"/readers/{ADA}/balance")).json() == 500, "for every client"
            assert set(routing_log.servers) == {"primary"}

        await asyncio.to_thread(disposable_cluster.catch_up)
        routing_log.clear()
        assert await texts(other, "/feed") == ["First!"]
        assert (await other.get("/dashboard")).json() == 1
        assert (await other.get(f"/readers/{ADA}/balance")).json() == 500
        assert routing_log.servers[-1] == "primary", "always"
        assert "primary" not in routing_log.servers[:-1]

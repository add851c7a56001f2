import collections.abc

import fastapi
import httpx
import pytest
from modern_di_fastapi import fetch_di_container

from modern_di_replicas import PrimaryEngine, ReplicationSettings
from modern_di_replicas.testing import LocalCluster, RoutingLog
from recipes.sqlmodel.app import Hero, main


@pytest.fixture
async def app(
    database: ReplicationSettings, monkeypatch: pytest.MonkeyPatch
) -> collections.abc.AsyncIterator[fastapi.FastAPI]:
    """Yield the started application with its table."""
    monkeypatch.setenv("PRIMARY_URL", database.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replica.url for replica in database.servers))
    app = main()
    async with app.router.lifespan_context(app):
        async with fetch_di_container(app).resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Hero.metadata.create_all, tables=[Hero.metadata.tables["hero"]])
        yield app


async def test_exec_works_on_both_servers(
    app: fastapi.FastAPI, replicated_cluster: LocalCluster, routing_log: RoutingLog
) -> None:
    """A GET reads from a replica what a POST adds on the primary."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://heroes") as client:
        routing_log.clear()
        added = await client.post("/heroes", json={"name": "Deadpond"})
        assert added.json() == {"id": 1, "name": "Deadpond"}
        assert set(routing_log.servers) == {"primary"}

        replicated_cluster.catch_up()
        routing_log.clear()
        assert (await client.get("/heroes")).json() == [{"id": 1, "name": "Deadpond"}]
        assert routing_log.servers in (["replica-1"], ["replica-2"])

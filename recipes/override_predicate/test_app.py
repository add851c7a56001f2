import collections.abc

import fastapi
import httpx
import pytest
from modern_di import Scope
from modern_di_fastapi import fetch_di_container
from sqlalchemy.ext.asyncio import AsyncEngine

from modern_di_replicas import Intent, PrimaryEngine, ReplicaEngine, ReplicationSettings
from modern_di_replicas.testing import LocalCluster, RoutingLog
from recipes.override_predicate.app import Base, main


@pytest.fixture
def app(database: ReplicationSettings, monkeypatch: pytest.MonkeyPatch) -> fastapi.FastAPI:
    monkeypatch.setenv("PRIMARY_URL", database.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replica.url for replica in database.servers))
    return main()


@pytest.fixture
async def client(
    app: fastapi.FastAPI, replicated_cluster: LocalCluster, routing_log: RoutingLog
) -> collections.abc.AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://stock") as client,
    ):
        async with fetch_di_container(app).resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        replicated_cluster.catch_up()
        routing_log.clear()
        yield client


async def test_a_call_that_lists_reads_a_replica(client: httpx.AsyncClient, routing_log: RoutingLog) -> None:
    """The predicate recognises it by its name, although it is a POST."""
    assert (await client.post("/rpc/list_quantities")).json() == {}
    assert routing_log.servers in (["replica-1"], ["replica-2"])


async def test_any_other_call_writes_the_primary(client: httpx.AsyncClient, routing_log: RoutingLog) -> None:
    """The predicate leaves it to the method."""
    response = await client.post("/rpc/set_quantity", params={"sku": "tea", "quantity": 12})

    assert response.json() == {"tea": 12}
    assert set(routing_log.servers) == {"primary"}


async def test_a_request_that_is_not_a_call_is_decided_as_usual(
    client: httpx.AsyncClient, routing_log: RoutingLog
) -> None:
    """The predicate leaves it to the method: a GET reads."""
    assert (await client.get("/quantities")).json() == {}
    assert routing_log.servers in (["replica-1"], ["replica-2"])


async def test_the_switch_moves_reads_to_the_primary_and_back(
    client: httpx.AsyncClient, routing_log: RoutingLog
) -> None:
    """The engine is chosen for each request, so no restart is needed."""
    (await client.put("/admin/replicas", params={"used": False})).raise_for_status()
    await client.get("/quantities")
    await client.post("/rpc/list_quantities")
    while_off = routing_log.servers.copy()
    routing_log.clear()
    (await client.put("/admin/replicas", params={"used": True})).raise_for_status()
    await client.get("/quantities")

    assert while_off == ["primary", "primary"]
    assert routing_log.servers in (["replica-1"], ["replica-2"])


@pytest.mark.parametrize(("declared", "expected"), [({}, PrimaryEngine), ({Intent: Intent.read()}, ReplicaEngine)])
async def test_a_job_still_declares_its_own_intent(
    app: fastapi.FastAPI, declared: dict[type, Intent], expected: type[AsyncEngine]
) -> None:
    """Without a request, the predicate uses the context."""
    async with (
        fetch_di_container(app) as container,
        container.build_child_container(scope=Scope.REQUEST, context=declared) as job,
    ):
        assert isinstance(job.resolve(AsyncEngine), expected)


def test_the_container_is_complete(app: fastapi.FastAPI) -> None:
    """Redefined providers are wired by type, like all others."""
    fetch_di_container(app).validate()

import collections.abc

import fastapi
import httpx
import pytest
from modern_di_fastapi import fetch_di_container

from modern_di_replicas import PrimaryEngine, ReplicationSettings
from modern_di_replicas.testing import LocalCluster, RoutingLog
from recipes.fastapi_app.app import Base, main


ADA = {"name": "Ada", "orders": [{"cents": 700}, {"cents": 500}]}


@pytest.fixture
def app(database: ReplicationSettings, monkeypatch: pytest.MonkeyPatch) -> fastapi.FastAPI:
    replica, analytics = database.servers
    monkeypatch.setenv("PRIMARY_URL", database.declared_primary.url)
    monkeypatch.setenv("REPLICA_URL", replica.url)
    monkeypatch.setenv("ANALYTICS_URL", analytics.url)
    return main()


@pytest.fixture
async def client(
    app: fastapi.FastAPI, replicated_cluster: LocalCluster, routing_log: RoutingLog
) -> collections.abc.AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://shop") as client,
    ):
        async with fetch_di_container(app).resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        (await client.post("/customers", json=ADA)).raise_for_status()
        replicated_cluster.catch_up()
        routing_log.clear()
        yield client


async def test_a_get_reads_a_replica(client: httpx.AsyncClient, routing_log: RoutingLog) -> None:
    """The customer and the orders are two statements on the same replica."""
    customer = (await client.get("/customers/1")).json()

    assert customer == {"id": 1, "visits": 0, **ADA}
    assert set(routing_log.servers) == {"replica-1"}


async def test_a_post_writes_the_primary(client: httpx.AsyncClient, routing_log: RoutingLog) -> None:
    """The response contains the written row, read from the primary."""
    response = await client.post("/customers", json={"name": "Grace"})

    assert response.json() == {"id": 2, "name": "Grace", "visits": 0, "orders": []}
    assert set(routing_log.servers) == {"primary"}


async def test_a_get_that_writes_uses_the_primary(client: httpx.AsyncClient, routing_log: RoutingLog) -> None:
    """With `@write_intent` it reads and writes on the primary, so no visit is lost."""
    answers = [(await client.get("/customers/1/profile")).json() for _ in range(3)]

    assert [customer["visits"] for customer in answers] == [1, 2, 3]
    assert set(routing_log.servers) == {"primary"}


@pytest.mark.parametrize(("spent", "names"), [(1000, ["Ada"]), (2000, [])])
async def test_a_search_reads_the_replica_for_analytics(
    client: httpx.AsyncClient, routing_log: RoutingLog, spent: int, names: list[str]
) -> None:
    """With `@read_intent(group="analytics")` a POST uses the replica of that group, and no other."""
    customers = (await client.post("/customers/search", json={"spent_cents": spent})).json()

    assert [customer["name"] for customer in customers] == names
    assert set(routing_log.servers) == {"replica-2"}


async def test_an_unknown_customer_is_not_found(client: httpx.AsyncClient) -> None:
    """With a GET, and with a GET that writes."""
    assert (await client.get("/customers/9")).status_code == 404
    assert (await client.get("/customers/9/profile")).status_code == 404

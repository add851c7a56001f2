import asyncio
import collections.abc

import fastapi
import httpx
import pytest
from modern_di_fastapi import fetch_di_container
from sqlalchemy import text

from modern_di_replicas import PrimaryEngine, ReplicationSettings
from modern_di_replicas.testing import LocalCluster, RoutingLog
from recipes.multi_tenant.app import TENANTS, create_tables, main


ACME, GLOBEX = ({"x-tenant": tenant} for tenant in TENANTS)
REPLICAS = {"replica-1", "replica-2"}


@pytest.fixture
async def app(
    database: ReplicationSettings, monkeypatch: pytest.MonkeyPatch
) -> collections.abc.AsyncIterator[fastapi.FastAPI]:
    """Yield the started application with the tables of each tenant."""
    monkeypatch.setenv("PRIMARY_URL", database.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replica.url for replica in database.servers))
    app = main()
    async with app.router.lifespan_context(app):
        primary = fetch_di_container(app).resolve(PrimaryEngine)
        async with primary.begin() as connection:
            await create_tables(connection)
        yield app
        async with primary.begin() as connection:
            await connection.execute(text(f"DROP SCHEMA {', '.join(TENANTS)} CASCADE"))


@pytest.fixture
async def client(
    app: fastapi.FastAPI, replicated_cluster: LocalCluster, routing_log: RoutingLog
) -> collections.abc.AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://crm") as client:
        for headers, name in ((ACME, "Ada"), (GLOBEX, "Grace")):
            (await client.post("/contacts", params={"name": name}, headers=headers)).raise_for_status()
        replicated_cluster.catch_up()
        routing_log.clear()
        yield client


async def test_a_tenant_reads_its_own_contacts_on_a_replica(client: httpx.AsyncClient, routing_log: RoutingLog) -> None:
    """The tenants alternate on the same pooled connections."""
    answers = [(await client.get("/contacts", headers=headers)).json() for headers in (ACME, GLOBEX) * 3]

    assert answers == [["Ada"], ["Grace"]] * 3
    assert set(routing_log.servers) <= REPLICAS


async def test_a_tenant_writes_its_own_contacts_on_the_primary(
    client: httpx.AsyncClient, routing_log: RoutingLog
) -> None:
    """A flush uses the tenant's schema, like the reads before and after it."""
    answer = (await client.post("/contacts", params={"name": "Alan"}, headers=ACME)).json()

    assert answer == ["Ada", "Alan"]
    assert set(routing_log.servers) == {"primary"}


async def test_the_tenant_goes_along_when_a_request_moves_to_the_primary(
    client: httpx.AsyncClient, routing_log: RoutingLog, replicated_cluster: LocalCluster
) -> None:
    """It reads and writes the same schema there, and the other tenant's is unchanged."""
    answer = (await client.get("/contacts/import", params={"name": "Edsger"}, headers=GLOBEX)).json()

    assert answer == ["Grace", "Edsger"]
    assert routing_log.servers[0] in REPLICAS
    assert set(routing_log.servers[1:]) == {"primary"}
    replicated_cluster.catch_up()
    assert (await client.get("/contacts", headers=ACME)).json() == ["Ada"]


async def test_concurrent_requests_of_different_tenants_do_not_mix(client: httpx.AsyncClient) -> None:
    """The schema belongs to the session of one request."""
    requests = [client.get("/contacts", headers=headers) for headers in (ACME, GLOBEX) * 10]

    answers = [response.json() for response in await asyncio.gather(*requests)]

    assert answers == [["Ada"], ["Grace"]] * 10


@pytest.mark.parametrize("headers", [{}, {"x-tenant": "public"}])
async def test_without_a_known_tenant_nothing_is_read(
    client: httpx.AsyncClient, headers: dict[str, str], routing_log: RoutingLog
) -> None:
    """No schema is used by default."""
    assert (await client.get("/contacts", headers=headers)).status_code == 404
    assert routing_log.servers == []


def test_the_container_is_complete(app: fastapi.FastAPI) -> None:
    """Redefined providers are wired by type, like all others."""
    fetch_di_container(app).validate()

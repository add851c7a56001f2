import asyncio
import collections.abc
import contextlib
import dataclasses

import fastapi
import httpx
import pytest
from modern_di_fastapi import fetch_di_container
from sqlalchemy import insert, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from modern_di_replicas import PrimaryEngine, ReplicaEngine, ReplicationSettings
from modern_di_replicas.testing import LocalCluster, RoutingLog
from recipes.row_level_security.app import POLICIES, Base, Note, create_app, main


ACME, GLOBEX, INITECH = ({"x-tenant": tenant} for tenant in ("acme", "globex", "initech"))
REPLICAS = {"replica-1", "replica-2"}

# Superusers and the owner of a table see every row; the application is neither.
ROLE, PASSWORD = "recipe_app", "secret"
GRANTS = (
    f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'",
    f"GRANT USAGE ON SCHEMA public TO {ROLE}",
    f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {ROLE}",
    f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {ROLE}",
)


@pytest.fixture
async def restricted(
    database: ReplicationSettings, replicated_cluster: LocalCluster
) -> collections.abc.AsyncIterator[ReplicationSettings]:
    """Yield the database for a role that is subject to policies, with a note of each of two tenants."""
    owner = create_async_engine(database.declared_primary.url)
    async with owner.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        notes = [{"tenant": "acme", "words": "Buy anvils"}, {"tenant": "globex", "words": "Buy an island"}]
        await connection.execute(insert(Note), notes)
        for statement in (*POLICIES, *GRANTS):
            await connection.execute(text(statement))
    replicated_cluster.catch_up()
    replicas = [dataclasses.replace(replica, url=restrict(replica.url)) for replica in database.servers]
    primary = restrict(database.declared_primary.url)
    yield ReplicationSettings(primary=primary, replicas=replicas, read_isolation="READ COMMITTED")
    async with owner.begin() as connection:
        await connection.execute(text(f"DROP OWNED BY {ROLE}"))
        await connection.execute(text(f"DROP ROLE {ROLE}"))
    await owner.dispose()


def restrict(url: str) -> str:
    return make_url(url).set(username=ROLE, password=PASSWORD).render_as_string(hide_password=False)


@pytest.fixture
async def app(
    restricted: ReplicationSettings, monkeypatch: pytest.MonkeyPatch
) -> collections.abc.AsyncIterator[fastapi.FastAPI]:
    """Yield the started application."""
    monkeypatch.setenv("PRIMARY_URL", restricted.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replica.url for replica in restricted.servers))
    app = main()
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def client(app: fastapi.FastAPI, routing_log: RoutingLog) -> collections.abc.AsyncIterator[httpx.AsyncClient]:
    routing_log.clear()
    async with client_of(app) as client:
        yield client


def client_of(app: fastapi.FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://notes")


async def test_a_tenant_sees_only_its_rows_on_a_replica(client: httpx.AsyncClient, routing_log: RoutingLog) -> None:
    """The tenants alternate on the same pooled connections, and the query names no tenant."""
    answers = [(await client.get("/notes", headers=headers)).json() for headers in (ACME, GLOBEX, INITECH) * 2]

    assert answers == [["Buy anvils"], ["Buy an island"], []] * 2
    assert set(routing_log.servers) <= REPLICAS


async def test_a_tenant_sees_only_its_rows_on_the_primary(client: httpx.AsyncClient, routing_log: RoutingLog) -> None:
    """Also after a commit, which ends the transaction and its setting: the next transaction sets it again."""
    answer = (await client.post("/notes", params={"words": "Sell anvils"}, headers=ACME)).json()

    assert answer == ["Buy anvils", "Sell anvils"]
    assert set(routing_log.servers) == {"primary"}


async def test_the_tenant_goes_along_when_a_request_moves_to_the_primary(
    client: httpx.AsyncClient, routing_log: RoutingLog, replicated_cluster: LocalCluster
) -> None:
    """It is set again in the primary's transaction: the row belongs to it, and it sees no other."""
    answer = (await client.get("/notes/welcome", headers=INITECH)).json()

    assert answer == ["Welcome!"]
    before, after = routing_log.servers[:2], routing_log.servers[2:]
    assert before in (["replica-1"] * 2, ["replica-2"] * 2)
    assert set(after) == {"primary"}
    replicated_cluster.catch_up()
    assert (await client.get("/notes", headers=ACME)).json() == ["Buy anvils"]


async def test_no_setting_of_a_tenant_remains_on_a_pooled_connection(
    client: httpx.AsyncClient, app: fastapi.FastAPI
) -> None:
    """A connection without a tenant sees no rows, on any server."""
    await asyncio.gather(*(client.get("/notes", headers=ACME) for _ in range(10)))
    await client.post("/notes", params={"words": "Sell anvils"}, headers=ACME)

    container = fetch_di_container(app)
    replicas = container.resolve(ReplicaEngine)
    for engine in (container.resolve(PrimaryEngine), replicas.choose(), replicas.choose()):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(4):
                connection = await stack.enter_async_context(engine.connect())
                assert not await connection.scalar(text("SELECT current_setting('app.tenant', true)"))
                assert await connection.scalar(text("SELECT count(*) FROM notes")) == 0


async def test_concurrent_requests_of_different_tenants_do_not_mix(client: httpx.AsyncClient) -> None:
    """The setting belongs to the transaction of one request."""
    requests = [client.get("/notes", headers=headers) for headers in (ACME, GLOBEX) * 10]

    answers = [response.json() for response in await asyncio.gather(*requests)]

    assert answers == [["Buy anvils"], ["Buy an island"]] * 10


async def test_in_autocommit_every_request_would_move_to_the_primary(
    restricted: ReplicationSettings, routing_log: RoutingLog
) -> None:
    """The setting would be gone before the next statement. The result is correct, but the replicas are unused."""
    app = create_app(dataclasses.replace(restricted, read_isolation="AUTOCOMMIT"))
    routing_log.clear()
    async with app.router.lifespan_context(app), client_of(app) as client:
        answer = (await client.get("/notes", headers=ACME)).json()

    assert answer == ["Buy anvils"]
    assert set(routing_log.servers) == {"primary"}


async def test_without_a_tenant_nothing_is_read(client: httpx.AsyncClient, routing_log: RoutingLog) -> None:
    """The request is refused before it has a session."""
    assert (await client.get("/notes")).status_code == 401
    assert routing_log.servers == []


def test_the_container_is_complete(app: fastapi.FastAPI) -> None:
    """Redefined providers are wired by type, like all others."""
    fetch_di_container(app).validate()

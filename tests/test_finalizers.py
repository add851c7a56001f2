"""Connections are returned after every outcome of a request, and closed after every end of the application."""

import asyncio
import collections
import random

import httpx
import pytest
import sqlalchemy.exc
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

from modern_di_replicas import PrimaryEngine, Replica, ReplicaEngine, ReplicationSettings
from modern_di_replicas.testing import LocalCluster
from tests.applications import BUILDERS, Application
from tests.waiting import until


@pytest.fixture(params=["fastapi", "litestar", "starlette"])
def application(
    request: pytest.FixtureRequest, replicated_cluster: LocalCluster, worker_application_name: str
) -> Application:
    settings = ReplicationSettings(
        primary=replicated_cluster.primary.url,
        replicas=[Replica(server.url, groups={"default", "analytics"}) for server in replicated_cluster.replicas],
        application_name=worker_application_name,
        replica_pool_timeout=30,
    )
    return BUILDERS[request.param](settings)


@pytest.fixture
def worker_application_name(request: pytest.FixtureRequest) -> str:
    return f"finalizers-{abs(hash(request.node.name)) % 10**8}"


def checked_out(application: Application) -> int:
    topology = application.container.resolve(ReplicaEngine).topology
    engines: list[AsyncEngine] = [application.container.resolve(PrimaryEngine)]
    engines += [member.engine for member in topology.servers]
    pools = [engine.sync_engine.pool for engine in engines]
    assert all(isinstance(pool, QueuePool) for pool in pools)
    return sum(pool.checkedout() for pool in pools if isinstance(pool, QueuePool))


def connections_of(cluster: LocalCluster, application_name: str) -> int:
    query = f"SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '{application_name}-%'"  # noqa: S608  # our own name
    return sum(int(server.execute(query)) for server in cluster.servers)


async def until_closed(cluster: LocalCluster, application_name: str) -> None:
    await until(lambda: connections_of(cluster, application_name) == 0)


async def outcome(client: httpx.AsyncClient, kind: str, method: str) -> str:
    """Send one request; cancel it during its statement if it is to be cancelled."""
    path = {"ok": "/", "fail": "/fail", "cancel": "/dawdle", "timeout": "/timeout"}[kind]
    request = asyncio.ensure_future(client.request(method, path))
    if kind == "cancel":
        await asyncio.wait([request], timeout=random.uniform(0.0, 0.05))  # noqa: S311  # anywhere in its life
        request.cancel()
    try:
        return str((await request).status_code)
    except asyncio.CancelledError:
        return "cancelled"


@pytest.mark.parametrize("requests", [200, pytest.param(1_000, marks=pytest.mark.slow)])
async def test_no_connection_stays_checked_out_after_any_outcome_of_the_requests(
    application: Application, replicated_cluster: LocalCluster, worker_application_name: str, requests: int
) -> None:
    """Mixed requests, a tenth failing, a tenth cancelled, some timing out: every connection is returned."""
    kinds = ["ok"] * 75 + ["fail"] * 10 + ["cancel"] * 10 + ["timeout"] * 5
    jobs = iter([(kinds[index % 100], "GET" if index % 3 else "POST") for index in range(requests)])
    outcomes: collections.Counter[tuple[str, str]] = collections.Counter()

    async with application.running() as client:

        async def worker() -> None:
            for kind, method in jobs:
                outcomes[kind, await outcome(client, kind, method)] += 1

        async with asyncio.timeout(60), asyncio.TaskGroup() as workers:
            for _ in range(20):
                workers.create_task(worker())

        assert sum(outcomes.values()) == requests
        assert outcomes["ok", "200"] + outcomes["ok", "201"] == requests * 75 // 100
        assert outcomes["fail", "500"] == requests * 10 // 100
        assert outcomes["timeout", "500"] == requests * 5 // 100
        assert outcomes["cancel", "cancelled"] > requests * 5 // 100
        assert checked_out(application) == 0
        assert connections_of(replicated_cluster, worker_application_name) > 0

    await until_closed(replicated_cluster, worker_application_name)


async def test_the_roles_are_distinguishable_in_pg_stat_activity(
    application: Application, replicated_cluster: LocalCluster, worker_application_name: str
) -> None:
    """An operator can see the purpose of each connection."""
    async with application.running() as client:
        for method in ("GET", "GET", "POST"):
            (await client.request(method, "/")).raise_for_status()
        names = {
            server.name: server.execute(
                "SELECT DISTINCT application_name FROM pg_stat_activity "  # noqa: S608  # our own name
                f"WHERE application_name LIKE '{worker_application_name}-%' ORDER BY 1"
            ).strip()
            for server in replicated_cluster.servers
        }

    def both(role: str) -> str:
        return f"{worker_application_name}-monitor\n{worker_application_name}-{role}"

    assert names.pop("primary") == both("primary")
    assert set(names.values()) == {both("replica")}


async def test_an_application_can_be_started_again_after_it_was_stopped(application: Application) -> None:
    """Test suites do this: the second lifespan gets new engines."""
    for _ in range(2):
        async with application.running() as client:
            (await client.get("/")).raise_for_status()


async def test_pool_sizes_are_separate_for_each_role(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: every pool option applies to the pool of its role."""
    application = BUILDERS["fastapi"](
        ReplicationSettings(
            primary=replicated_cluster.primary.url,
            replicas=[replicated_cluster.replicas[0].url],
            primary_pool_size=2,
            primary_max_overflow=1,
            replica_pool_size=3,
            replica_max_overflow=0,
            replica_pool_timeout=0.01,
        )
    )
    async with application.container as container:
        primary, replica = container.resolve(PrimaryEngine), container.resolve(ReplicaEngine).choose()
        pools = [primary.sync_engine.pool, replica.sync_engine.pool]
        assert [pool.size() for pool in pools if isinstance(pool, QueuePool)] == [2, 3]

        connections = [await replica.connect().start() for _ in range(3)]
        with pytest.raises(sqlalchemy.exc.TimeoutError) as caught:
            await replica.connect().start()
        assert "0.01" in str(caught.value)
        for connection in connections:
            assert await connection.scalar(text("SELECT pg_is_in_recovery()")) is True
            await connection.close()

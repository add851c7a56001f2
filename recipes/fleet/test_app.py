import asyncio
import collections
import collections.abc
import contextlib
import dataclasses

import fastapi
import httpx
import pytest
from modern_di_fastapi import fetch_di_container

from modern_di_replicas import PrimaryEngine, ReplicationSettings
from modern_di_replicas.testing import LocalCluster, RoutingLog
from recipes.fleet.app import Base, PreferLocal, create_app, fleet, main
from tests.waiting import until


@contextlib.asynccontextmanager
async def serving(app: fastapi.FastAPI, cluster: LocalCluster) -> collections.abc.AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://shop") as client,
    ):
        async with fetch_di_container(app).resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        cluster.catch_up()
        yield client


@pytest.fixture
def settings(database: ReplicationSettings) -> ReplicationSettings:
    large, small = (replica.url for replica in database.servers)
    return fleet(database.declared_primary.url, large, small)


async def test_nine_requests_of_ten_go_to_the_large_replica(
    settings: ReplicationSettings, replicated_cluster: LocalCluster, routing_log: RoutingLog
) -> None:
    """As the servers report: large is the cluster's first replica, small its second."""
    async with serving(create_app(settings), replicated_cluster) as client:
        routing_log.clear()
        for _ in range(20):
            assert (await client.get("/orders/count")).json() == 0

    assert collections.Counter(routing_log.servers) == {"replica-1": 18, "replica-2": 2}


async def test_reports_go_to_the_replica_of_their_group(
    database: ReplicationSettings,
    replicated_cluster: LocalCluster,
    routing_log: RoutingLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A POST that only reads, for any number of customers."""
    monkeypatch.setenv("PRIMARY_URL", database.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replica.url for replica in database.servers))
    async with serving(main(), replicated_cluster) as client:
        routing_log.clear()
        for _ in range(3):
            assert (await client.post("/reports/turnover")).json() == 0

    assert routing_log.servers == ["replica-2"] * 3


async def test_the_reads_of_one_user_stay_on_one_replica(
    settings: ReplicationSettings, replicated_cluster: LocalCluster, routing_log: RoutingLog
) -> None:
    """The users are distributed over both replicas."""
    homes = set()
    async with serving(create_app(settings), replicated_cluster) as client:
        for user in range(40):
            routing_log.clear()
            for _ in range(3):
                await client.get("/orders/count", headers={"x-user": str(user)})
            assert len(set(routing_log.servers)) == 1
            homes |= set(routing_log.servers)

    assert homes == {"replica-1", "replica-2"}


async def test_an_order_is_written_on_the_primary_for_every_user(
    settings: ReplicationSettings, replicated_cluster: LocalCluster, routing_log: RoutingLog
) -> None:
    """Affinity chooses among replicas; a write remains a write."""
    async with serving(create_app(settings), replicated_cluster) as client:
        routing_log.clear()
        response = await client.post("/orders", params={"amount": 7}, headers={"x-user": "1"})
        assert response.status_code == 201

    assert set(routing_log.servers) == {"primary"}


async def test_a_replica_that_is_late_for_customers_is_still_good_for_reports(
    disposable_cluster: LocalCluster, routing_log: RoutingLog
) -> None:
    """The replay of both replicas is paused: after two seconds only the small one serves."""
    large, small = disposable_cluster.replicas
    settings = fleet(disposable_cluster.primary.url, large.url, small.url)
    async with serving(create_app(settings), disposable_cluster) as client:
        for replica in (large, small):
            await asyncio.to_thread(replica.pause_replay)
        (await client.post("/orders", params={"amount": 7})).raise_for_status()
        client.cookies.clear()  # the readers are other clients; the writer sees its own write

        async def only_the_small_one_serves() -> bool:
            routing_log.clear()
            for _ in range(3):
                await client.get("/orders/count")
            return routing_log.servers == ["replica-2"] * 3

        await until(only_the_small_one_serves)
        routing_log.clear()
        assert (await client.post("/reports/turnover")).json() == 0, "as old as it may be"
        assert routing_log.servers == ["replica-2"]

        await asyncio.to_thread(large.resume_replay)
        counts: list[int] = []

        async def the_large_one_serves() -> bool:
            routing_log.clear()
            counts.append((await client.get("/orders/count")).json())
            return "replica-1" in routing_log.servers

        await until(the_large_one_serves)
        assert counts[-1] == 1


async def test_a_custom_balancer_chooses(
    database: ReplicationSettings, replicated_cluster: LocalCluster, routing_log: RoutingLog
) -> None:
    """It ignores the weights."""
    large, small = (replica.url for replica in database.servers)
    local = fleet(database.declared_primary.url, large, small, balancing=PreferLocal)
    async with serving(create_app(local), replicated_cluster) as client:
        routing_log.clear()
        for _ in range(5):
            await client.get("/orders/count")

    assert routing_log.servers == ["replica-2"] * 5


def test_a_full_local_replica_is_left_to_the_others() -> None:
    """Free connections take precedence over locality."""

    @dataclasses.dataclass
    class Candidate:
        name: str
        has_room: bool
        weight: int = 1
        in_use: int = 0

    small, large = Candidate("small", has_room=False, in_use=3), Candidate("large", has_room=True)

    assert PreferLocal().choose([small, large]) is large

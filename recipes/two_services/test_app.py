import asyncio

import httpx
import pytest
from modern_di_fastapi import fetch_di_container

from modern_di_replicas import PrimaryEngine, ReplicationSettings
from modern_di_replicas.testing import LocalCluster, RoutingLog
from recipes.two_services.app import Base, billing, create_orders, orders, settings


ORDER: dict[str, str | list[str]] = {"customer": "Ada", "cents": ["700", "500"]}


def declare(monkeypatch: pytest.MonkeyPatch, primary: str, replicas: list[str]) -> ReplicationSettings:
    monkeypatch.setenv("PRIMARY_URL", primary)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replicas))
    monkeypatch.setenv("TOKEN_SECRET", "a secret")
    monkeypatch.setenv("BILLING_URL", "http://billing")
    return settings()


async def test_the_called_service_reads_the_order(
    disposable_cluster: LocalCluster, routing_log: RoutingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the primary while the replay is paused, and on a replica once it has caught up."""
    replicas = disposable_cluster.replicas
    declared = declare(monkeypatch, disposable_cluster.primary.url, [replica.url for replica in replicas])
    called = billing()
    calling = create_orders(declared, "http://billing", httpx.ASGITransport(called))
    async with (
        called.router.lifespan_context(called),
        calling.router.lifespan_context(calling),
        httpx.AsyncClient(transport=httpx.ASGITransport(calling), base_url="http://shop") as client,
    ):
        async with fetch_di_container(calling).resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await asyncio.to_thread(disposable_cluster.catch_up)
        for replica in replicas:
            replica.pause_replay()
        answer = await client.post("/orders", params=ORDER)
        assert answer.json() == "Ada owes 12.00"
        assert not routing_log.visits[-1].is_replica

        for replica in replicas:
            replica.resume_replay()
        await asyncio.to_thread(disposable_cluster.catch_up)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(called), base_url="http://billing") as other:
            assert (await other.get("/invoices/1", headers={"cookie": cookie(answer)})).json() == "Ada owes 12.00"
        assert routing_log.visits[-1].is_replica


def cookie(answer: httpx.Response) -> str:
    return f"consistency-token={answer.cookies['consistency-token']}"


def test_the_program_is_made_of_its_environment(database: ReplicationSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As run from a shell."""
    declare(monkeypatch, database.declared_primary.url, [replica.url for replica in database.servers])
    assert orders().router.routes

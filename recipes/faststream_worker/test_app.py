import asyncio
import collections.abc
import contextlib
import typing

import faststream
import httpx
import pytest
from faststream.redis import RedisBroker
from modern_di_fastapi import fetch_di_container

from modern_di_replicas import PrimaryEngine, ReplicationSettings
from modern_di_replicas.testing import LocalCluster, RoutingLog
from recipes.faststream_worker.app import Base, main, worker
from tests.waiting import until


ORDER: dict[str, str | list[str]] = {"customer": "Ada", "cents": ["700", "500"]}


@contextlib.asynccontextmanager
async def serving(
    invoices: asyncio.Queue[str],
) -> collections.abc.AsyncIterator[tuple[httpx.AsyncClient, faststream.FastStream]]:
    """Run both programs, and collect the invoices."""
    doing, app = worker(), main()
    broker = typing.cast(RedisBroker, doing.broker)

    @broker.subscriber("invoice-written")
    async def receive(text: str) -> None:
        await invoices.put(text)

    await doing.start()
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client,
    ):
        async with fetch_di_container(app).resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield client, doing
    await doing.stop()


async def test_the_event_of_a_request_reads_its_order(
    database: ReplicationSettings,
    replicated_cluster: LocalCluster,
    redis_url: str,
    routing_log: RoutingLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The subscriber waits for a replica, and writes use the primary."""
    monkeypatch.setenv("PRIMARY_URL", database.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replica.url for replica in database.servers))
    monkeypatch.setenv("REDIS_URL", redis_url)
    invoices: asyncio.Queue[str] = asyncio.Queue()
    async with serving(invoices) as (client, doing):
        response = await client.post("/orders", params=ORDER)
        assert response.status_code == 201
        assert await asyncio.wait_for(invoices.get(), 30) == "Ada owes 12.00"
        assert routing_log.visits[-1].is_replica

        await typing.cast(RedisBroker, doing.broker).publish(response.json(), "order-paid")
        await until(lambda: routing_log.visits[-1].wrote)
        await asyncio.to_thread(replicated_cluster.catch_up)

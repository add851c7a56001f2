import asyncio
import contextlib
import typing

import celery.contrib.testing.worker
import httpx
import pytest
from modern_di_celery import fetch_di_container as fetch_of_worker
from modern_di_fastapi import fetch_di_container
from sqlalchemy import make_url

from modern_di_replicas import PrimaryEngine, ReplicationSettings
from modern_di_replicas.testing import LocalCluster, RoutingLog
from recipes.celery_worker.app import Base, main, pay, worker


ORDER: dict[str, str | list[str]] = {"customer": "Ada", "cents": ["700", "500"]}


def address(url: str) -> str:
    return url.rpartition("@")[2]


async def test_the_task_of_a_request_reads_its_order(
    database: ReplicationSettings,
    replicated_cluster: LocalCluster,
    redis_url: str,
    routing_log: RoutingLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The task waits for a replica, and writes use the primary."""
    primary = make_url(database.declared_primary.url)
    urls = [database.declared_primary.url, *(replica.url for replica in database.servers)]
    monkeypatch.setenv("CREDENTIALS", f"{primary.username}:{primary.password or ''}")
    monkeypatch.setenv("SERVERS", " ".join(map(address, urls)))
    monkeypatch.setenv("REDIS_URL", redis_url)
    app, doing = main(), worker()
    with contextlib.ExitStack() as stack:
        stack.enter_context(fetch_of_worker(doing))
        working = celery.contrib.testing.worker.start_worker(doing, pool="solo", perform_ping_check=False)
        stack.enter_context(working)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client,
        ):
            async with fetch_di_container(app).resolve(PrimaryEngine).begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            response = await client.post("/orders", params=ORDER)
            assert response.status_code == 201
            assert await result_of(doing, response.json()["task"]) == "Ada owes 12.00"
            assert routing_log.visits[-1].is_replica

            await result_of(doing, pay.delay(response.json()["order"]).id)
            assert routing_log.visits[-1].wrote
            await asyncio.to_thread(replicated_cluster.catch_up)


async def result_of(app: celery.Celery, task: str) -> typing.Any:
    return await asyncio.to_thread(app.AsyncResult(task).get, 30)

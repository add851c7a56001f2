import asyncio
import collections.abc
import contextlib
import typing

import httpx
import pytest
import taskiq
from modern_di_fastapi import fetch_di_container
from taskiq.receiver import Receiver

from modern_di_replicas import PrimaryEngine, ReplicationSettings
from modern_di_replicas.testing import LocalCluster, RoutingLog
from recipes.taskiq_worker.app import Base, main, pay, worker, write_invoice


ORDER: dict[str, str | list[str]] = {"customer": "Ada", "cents": ["700", "500"]}


@contextlib.asynccontextmanager
async def serving() -> collections.abc.AsyncIterator[httpx.AsyncClient]:
    """Run both programs: the worker executes the tasks, and the application's broker queues them."""
    doing, app = worker(), main()
    doing.is_worker_process = True
    finished = asyncio.Event()
    working = asyncio.create_task(Receiver(doing, max_async_tasks=2).listen(finished))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client,
    ):
        async with fetch_di_container(app).resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield client
    finished.set()
    await working
    await doing.shutdown()


async def result_of(task_id: str) -> typing.Any:
    broker = typing.cast(typing.Any, write_invoice.kicker()).broker
    task: taskiq.AsyncTaskiqTask[typing.Any] = taskiq.AsyncTaskiqTask(task_id, broker.result_backend)
    return (await task.wait_result(timeout=30, check_interval=0.01)).return_value


async def test_the_task_of_a_request_reads_its_order(
    database: ReplicationSettings,
    replicated_cluster: LocalCluster,
    redis_url: str,
    routing_log: RoutingLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The task waits for a replica, and writes use the primary."""
    monkeypatch.setenv("PRIMARY_URL", database.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replica.url for replica in database.servers))
    monkeypatch.setenv("REDIS_URL", redis_url)
    async with serving() as client:
        response = await client.post("/orders", params=ORDER)
        assert response.status_code == 201
        assert await result_of(response.json()["task"]) == "Ada owes 12.00"
        assert routing_log.visits[-1].is_replica

        paid = await pay.kiq(response.json()["order"])  # type: ignore[call-overload]  # as in the application
        await result_of(paid.task_id)
        assert not routing_log.visits[-1].is_replica
        await asyncio.to_thread(replicated_cluster.catch_up)

import asyncio
import collections.abc
import contextlib

import fastapi
import httpx
import pytest
from modern_di_fastapi import fetch_di_container

from modern_di_replicas import ConsistencyToken, PrimaryEngine, ReplicationSettings
from modern_di_replicas.testing import LocalCluster, RoutingLog
from recipes.read_after_write_job.app import Base, Job, Queue, create_app, main, worker_container, write_invoice
from tests.waiting import until


ORDER: dict[str, str | list[str]] = {"customer": "Ada", "cents": ["700", "500"]}
INVOICE = "Ada owes 12.00"


@contextlib.asynccontextmanager
async def serving(app: fastapi.FastAPI) -> collections.abc.AsyncIterator[httpx.AsyncClient]:
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client,
    ):
        async with fetch_di_container(app).resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield client


async def order(settings: ReplicationSettings) -> Job:
    """Send an order, and take the job from the queue."""
    queue = Queue()
    async with serving(create_app(settings, queue)) as client:
        response = await client.post("/orders", params=ORDER)
        assert response.status_code == 201
    return Job.from_json(queue.get_nowait())


async def test_a_job_reads_a_replica_that_has_the_order(
    database: ReplicationSettings, replicated_cluster: LocalCluster, routing_log: RoutingLog
) -> None:
    """By its token; the worker is another program, with a separate container and monitor."""
    job = await order(database)
    assert job.after is not None
    assert str(ConsistencyToken.parse(job.after)) == job.after
    async with worker_container(database) as worker:
        await asyncio.to_thread(replicated_cluster.catch_up)
        routing_log.clear()
        assert await write_invoice(worker, job) == INVOICE
        assert routing_log.servers in (["replica-1"], ["replica-2"])


async def test_a_job_reads_the_primary_while_no_replica_has_the_order(
    disposable_cluster: LocalCluster, routing_log: RoutingLog
) -> None:
    """The replay is paused; a read without the token would not find the order."""
    settings = ReplicationSettings(
        primary=disposable_cluster.primary.url, replicas=[replica.url for replica in disposable_cluster.replicas]
    )
    async with worker_container(settings) as worker:
        for replica in disposable_cluster.replicas:
            replica.pause_replay()
        job = await order(settings)
        routing_log.clear()
        assert await write_invoice(worker, job) == INVOICE
        assert set(routing_log.servers) == {"primary"}

        for replica in disposable_cluster.replicas:
            replica.resume_replay()
        await asyncio.to_thread(disposable_cluster.catch_up)
        routing_log.clear()
        assert await write_invoice(worker, job) == INVOICE
        assert routing_log.servers in (["replica-1"], ["replica-2"])


async def test_without_replicas_there_is_no_token_and_the_primary_reads(database: ReplicationSettings) -> None:
    """As in development with one server: the same code."""
    single = ReplicationSettings(primary=database.declared_primary.url)
    job = await order(single)
    assert job.after is None
    async with worker_container(single) as worker:
        assert await write_invoice(worker, job) == INVOICE


async def test_the_program_answers_and_its_worker_writes_the_invoice(
    database: ReplicationSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As run from a shell, whether or not a replica has the order."""
    monkeypatch.setenv("PRIMARY_URL", database.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replica.url for replica in database.servers))
    async with serving(main()) as client:
        (await client.post("/orders", params=ORDER)).raise_for_status()
        await until(lambda: INVOICE in capsys.readouterr().out)

"""Containers on clusters that tests break, and jobs that return the server they read from."""

import asyncio
import collections.abc
import contextlib
import contextvars
import typing

import fastapi
import httpx
from modern_di import Container, Group
from modern_di_fastapi import FromDI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

import modern_di_replicas.fastapi
from modern_di_replicas import (
    Dependencies,
    Monitor,
    PrimaryEngine,
    ReplicaEngine,
    ReplicationSettings,
    read_intent,
)
from modern_di_replicas.testing import LocalCluster


READ = text("SELECT amount, pg_is_in_recovery() FROM stock WHERE id = 1")
WRITE = text("UPDATE stock SET amount = amount + 1 WHERE id = 1")

Result = typing.TypeVar("Result")

PRIMARY, REPLICA = False, True
"""The results of `pg_is_in_recovery()`."""


def settings_of(cluster: LocalCluster, **options: typing.Any) -> ReplicationSettings:
    return ReplicationSettings(
        primary=cluster.primary.url, replicas=[replica.url for replica in cluster.replicas], **options
    )


def create_stock(cluster: LocalCluster) -> None:
    """Create the table that jobs read and write, with an amount of 0."""
    cluster.primary.execute("CREATE TABLE stock (id int PRIMARY KEY, amount int NOT NULL)")
    cluster.primary.execute("INSERT INTO stock VALUES (1, 0)")
    cluster.catch_up()


@contextlib.asynccontextmanager
async def watched(
    settings: ReplicationSettings, group: type[Group] = Dependencies
) -> collections.abc.AsyncIterator[Container]:
    """Yield an open container with a running monitor."""
    async with (
        Container(groups=[group], context={ReplicationSettings: settings}) as container,
        Monitor(container.resolve(ReplicaEngine)),
    ):
        yield container


async def read(session: AsyncSession) -> tuple[int, bool]:
    """Return the amount, and whether a replica returned it."""
    amount, is_replica = (await session.execute(READ)).one()
    return amount, is_replica


async def write(session: AsyncSession) -> None:
    await session.execute(WRITE)
    await session.commit()


async def write_with_core(container: Container) -> None:
    async with container.resolve(PrimaryEngine).begin() as connection:
        await connection.execute(WRITE)


@contextlib.contextmanager
def replay_paused(cluster: LocalCluster) -> collections.abc.Iterator[None]:
    """Pause the replay of the replicas."""
    for replica in cluster.replicas:
        replica.pause_replay()
    try:
        yield
    finally:
        for replica in cluster.replicas:
            replica.resume_replay()


async def caught_up(cluster: LocalCluster) -> None:
    """Resume the replay, and wait until the replicas have caught up."""
    for replica in cluster.replicas:
        replica.resume_replay()
    await asyncio.to_thread(cluster.catch_up)


async def in_own_task(job: collections.abc.Coroutine[typing.Any, typing.Any, Result]) -> Result:
    """Run a job as a separate client without writes."""
    return await asyncio.create_task(job, context=contextvars.Context())


Queue = collections.abc.Callable[[str], collections.abc.Awaitable[tuple[int, bool]]]
"""Queues a job by its name, and returns what the job has read."""


@contextlib.asynccontextmanager
async def web_application(
    settings: ReplicationSettings, queue: Queue
) -> collections.abc.AsyncIterator[httpx.AsyncClient]:
    """Run an application whose requests queue a job and return what the job read; yield its client."""
    app = fastapi.FastAPI()
    session_of = typing.Annotated[AsyncSession, FromDI(AsyncSession)]

    @app.post("/write-and-queue/{job}")
    async def write_and_queue(job: str, session: session_of) -> tuple[int, bool]:
        await write(session)
        return await queue(job)

    @app.post("/queue-and-write/{job}")
    async def queue_and_write(job: str, session: session_of) -> tuple[int, bool]:
        seen = await queue(job)
        await write(session)
        return seen

    @app.post("/queue-in-transaction/{job}")
    @read_intent
    async def queue_in_transaction(job: str, session: session_of) -> tuple[int, bool]:
        await session.execute(WRITE)
        seen = await queue(job)
        await session.commit()
        return seen

    @app.get("/queue/{job}")
    async def only_queue(job: str) -> tuple[int, bool]:
        return await queue(job)

    container = Container(groups=[modern_di_replicas.fastapi.Dependencies], context={ReplicationSettings: settings})
    modern_di_replicas.fastapi.setup_replicas(app, container)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        yield client


async def check_jobs(cluster: LocalCluster, queue: Queue, **options: typing.Any) -> None:
    """Check the behaviour required of each kind of job.

    `reads` is marked with `@read_intent`, `unmarked` is not. A job sees the writes of the request that queued it, and
    reads from a replica again once the replica has caught up. A job that is queued before its request commits reads
    from the primary, because no replica can be known to have the write.
    """
    async with web_application(settings_of(cluster, **options), queue) as client:

        async def ask(method: str, path: str) -> list[typing.Any]:
            answer = await client.request(method, path)
            answer.raise_for_status()
            return typing.cast(list[typing.Any], answer.json())

        assert await ask("GET", "/queue/reads") == [0, REPLICA]
        with replay_paused(cluster):
            assert await ask("POST", "/write-and-queue/reads") == [1, PRIMARY]
            assert await ask("GET", "/queue/reads") == [1, PRIMARY], "its client has written before"
        await caught_up(cluster)
        assert await ask("GET", "/queue/reads") == [1, REPLICA]
        assert await ask("GET", "/queue/unmarked") == [1, PRIMARY]
        assert await ask("POST", "/queue-and-write/reads") == [1, PRIMARY]
        await caught_up(cluster)
        assert await ask("POST", "/queue-in-transaction/reads") == [2, PRIMARY]
        await caught_up(cluster)
        assert await ask("GET", "/queue/reads") == [3, REPLICA]

"""Containers on a cluster that tests break, and jobs that say which server they have read from."""

import asyncio
import collections.abc
import contextlib
import contextvars
import typing

from modern_di import Container, Group
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from modern_di_replicas import Dependencies, Monitor, PrimaryEngine, ReplicaEngine, ReplicationSettings
from modern_di_replicas.testing import LocalCluster


READ = text("SELECT amount, pg_is_in_recovery() FROM stock WHERE id = 1")
WRITE = text("UPDATE stock SET amount = amount + 1 WHERE id = 1")

Result = typing.TypeVar("Result")

PRIMARY, REPLICA = False, True
"""What `pg_is_in_recovery()` says."""


def settings_of(cluster: LocalCluster, **options: typing.Any) -> ReplicationSettings:
    return ReplicationSettings(
        primary=cluster.primary.url, replicas=[replica.url for replica in cluster.replicas], **options
    )


def create_stock(cluster: LocalCluster) -> None:
    """Make the table that the jobs read and write, with an amount of 0."""
    cluster.primary.execute("CREATE TABLE stock (id int PRIMARY KEY, amount int NOT NULL)")
    cluster.primary.execute("INSERT INTO stock VALUES (1, 0)")
    cluster.catch_up()


@contextlib.asynccontextmanager
async def watched(
    settings: ReplicationSettings, group: type[Group] = Dependencies
) -> collections.abc.AsyncIterator[Container]:
    """Give an open container, whose servers are watched."""
    async with (
        Container(groups=[group], context={ReplicationSettings: settings}) as container,
        Monitor(container.resolve(ReplicaEngine)),
    ):
        yield container


async def read(session: AsyncSession) -> tuple[int, bool]:
    """Return the amount, and whether a replica has said so."""
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
    """Have the replicas stand still."""
    for replica in cluster.replicas:
        replica.pause_replay()
    try:
        yield
    finally:
        for replica in cluster.replicas:
            replica.resume_replay()


async def caught_up(cluster: LocalCluster) -> None:
    """Have the replicas replay what was written."""
    for replica in cluster.replicas:
        replica.resume_replay()
    await asyncio.to_thread(cluster.catch_up)


async def in_own_task(job: collections.abc.Coroutine[typing.Any, typing.Any, Result]) -> Result:
    """Run a job as a client of its own, which has written nothing."""
    return await asyncio.create_task(job, context=contextvars.Context())

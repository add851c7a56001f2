"""One contender under load, in a separate process: prints its resources as a line of JSON every second."""

import argparse
import asyncio
import collections.abc
import contextlib
import gc
import json
import sys

import psutil
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from modern_di_replicas import Intent, Monitor, ReplicationSettings, RoutedSession
from modern_di_replicas.cluster.engines.create import create_primary_engine, create_replica_engine


CLIENTS = 20
Session = collections.abc.Callable[[bool], AsyncSession]


@contextlib.asynccontextmanager
async def routed(urls: list[str]) -> collections.abc.AsyncIterator[Session]:
    """Yield sessions of the library, with a monitor."""
    settings = ReplicationSettings(primary=urls[0], replicas=urls[1:], primary_pool_timeout=5)
    primary = create_primary_engine(settings)
    replicas = create_replica_engine(settings, primary)

    def session(writes: bool) -> AsyncSession:
        if writes:
            return RoutedSession(primary, intent=Intent.write())
        return RoutedSession(replicas, intent=Intent.read())

    async with Monitor(replicas):
        yield session
    await replicas.dispose()
    await primary.dispose()


@contextlib.asynccontextmanager
async def plain(urls: list[str]) -> collections.abc.AsyncIterator[Session]:
    """Yield sessions of two engines, as in hand-written code."""
    primary, replica = (create_async_engine(url, pool_pre_ping=True, pool_timeout=5) for url in urls[:2])

    def session(writes: bool) -> AsyncSession:
        return AsyncSession(primary if writes else replica)

    yield session
    await primary.dispose()
    await replica.dispose()


async def client(number: int, session: Session, done: list[int]) -> None:
    while True:
        writes = number % 5 == 0
        with contextlib.suppress(Exception):
            async with asyncio.timeout(10), session(writes) as opened:
                await opened.execute(text("INSERT INTO soaked DEFAULT VALUES" if writes else "SELECT 1"))
                await opened.commit()
            done[writes] += 1
        await asyncio.sleep(0.01)


def say(kind: str, done: list[int]) -> None:
    gc.collect()
    process = psutil.Process()
    held = {
        "kind": kind,
        "memory": process.memory_info().rss,
        "tasks": len(asyncio.all_tasks()),
        "descriptors": process.num_fds(),
        "objects": len(gc.get_objects()),
        "reads": done[0],
        "writes": done[1],
    }
    sys.stdout.write(json.dumps(held) + "\n")
    sys.stdout.flush()


async def main(contender: str, seconds: float, urls: list[str]) -> None:
    done = [0, 0]
    say("before", done)
    async with {"routed": routed, "plain": plain}[contender](urls) as session:
        tasks = [asyncio.create_task(client(number, session, done)) for number in range(CLIENTS)]
        for _ in range(int(seconds)):
            await asyncio.sleep(1)
            say("under load", done)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0.5)
    say("after", done)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("contender")
    parser.add_argument("seconds", type=float)
    parser.add_argument("urls", nargs="+")
    given = parser.parse_args()
    asyncio.run(main(given.contender, given.seconds, given.urls))

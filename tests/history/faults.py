"""Faults of the servers while the clients work."""

import asyncio
import collections.abc
import contextlib
import functools
import itertools
import random
import time
import typing

import asyncpg

from modern_di_replicas.testing import LocalCluster, LocalServer
from tests.history.events import Disturbance, History, Operation
from tests.history.interrupted import Interruption
from tests.waiting import until


class Faults:
    """Injects faults into the servers, one at a time, and records their times.

    Args:
        cluster: the servers. Commits wait for a replica, so that a failover loses no acknowledged write.
        history: records the times.
        seed: makes the choices reproducible.

    """

    def __init__(self, cluster: LocalCluster, *, seed: int = 0) -> None:
        self.history = History()
        self.primary = cluster.primary
        """The current primary."""
        self.replicas = list(cluster.replicas)
        self._random = random.Random(seed)  # noqa: S311  # for variety

    def shuffled_replicas(self) -> list[LocalServer]:
        return self._random.sample(self.replicas, len(self.replicas))

    @contextlib.asynccontextmanager
    async def lagging(self, replica: LocalServer, *, milliseconds: int) -> collections.abc.AsyncIterator[None]:
        """Keep a replica behind by a constant time. It serves as usual, so this is not a disturbance."""
        await _configure(replica, f"SET recovery_min_apply_delay = {milliseconds}")
        try:
            yield
        finally:
            await _configure(replica, "RESET recovery_min_apply_delay")

    @contextlib.asynccontextmanager
    async def paused(self, *replicas: LocalServer) -> collections.abc.AsyncIterator[None]:
        """Pause the replay of replicas."""
        with self._disturbing("pause", *replicas):
            for replica in replicas:
                await asyncio.to_thread(replica.pause_replay)
            try:
                yield
            finally:
                for replica in replicas:
                    await asyncio.to_thread(replica.resume_replay)

    async def pause(self, *replicas: LocalServer, seconds: float) -> None:
        """Pause the replay of replicas for a while."""
        async with self.paused(*replicas):
            await asyncio.sleep(seconds)

    async def restart(self, replica: LocalServer) -> None:
        with self._disturbing("restart", replica):
            await asyncio.to_thread(replica.restart)

    async def crash(self, replica: LocalServer, *, seconds: float = 0.0) -> None:
        """Crash a replica, and restart it after a while."""
        with self._disturbing("crash", replica):
            await asyncio.to_thread(replica.stop, "immediate")
            await asyncio.sleep(seconds)
            await asyncio.to_thread(replica.start)

    async def fall_back(self, replica: LocalServer, *, seconds: float) -> None:
        """Crash a replica so that its data is older for a while than before the crash.

        After a crash a standby accepts readers as soon as its files are consistent, and then replays up to its former
        position. Here the rest of that replay is delayed, as if it were long.
        """
        with self._disturbing("fall back", replica):
            await asyncio.to_thread(
                replica.execute, f"ALTER SYSTEM SET recovery_min_apply_delay = {round(seconds * 1000)}"
            )  # only read at the start
            await asyncio.to_thread(replica.stop, "immediate")
            await asyncio.to_thread(replica.start)
            await asyncio.sleep(seconds)
            await _configure(replica, "RESET recovery_min_apply_delay")

    async def freeze(self, replica: LocalServer, *, seconds: float) -> None:
        with self._disturbing("freeze", replica):
            await asyncio.to_thread(replica.freeze)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(replica.thaw)

    async def interrupt_commits(self, interruption: Interruption, *, seconds: float) -> None:
        """Lose the responses of some commits for a while, or cancel their requests; replicas are paused meanwhile."""
        with self._disturbing({"lost": "answer lost", "cancelled": "cancelled"}[interruption], self.primary):
            self.history.interruption = interruption
            try:
                await asyncio.sleep(seconds)
            finally:
                self.history.interruption = ""

    async def look(self, key: str) -> int | None:
        """Return the content of a register of the primary, read directly; None if it cannot be known."""
        try:
            connection = await asyncpg.connect(self.primary.dsn, timeout=5)
            try:
                return typing.cast(int, await connection.fetchval("SELECT value FROM registers WHERE key = $1", key))
            finally:
                await connection.close(timeout=5)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return None

    async def switch_over(self) -> None:
        """Crash the primary, promote the replica that has received most, and make the others follow it."""
        former, members = self.primary, [self.primary, *self.replicas]
        with self._disturbing("switchover", *members):
            with self._disturbing("without a primary", *members, without_primary=True):
                await asyncio.to_thread(former.stop, "immediate")
                received = {replica: await _received(replica) for replica in self.replicas}
                chosen = max(self.replicas, key=lambda replica: received[replica])
                # No standby follows it yet that a commit could wait for.
                await _configure(chosen, "SET synchronous_standby_names = ''")
                await asyncio.to_thread(chosen.promote)
                await self._until_written()
            self.primary, self.replicas = chosen, [server for server in members if server is not chosen]
            for replica in reversed(self.replicas):  # the former primary last, because it does not serve anyway
                await asyncio.to_thread(replica.follow, chosen)
            await _configure(chosen, "RESET synchronous_standby_names")

    async def _until_written(self) -> None:
        """Wait until every worker has written again; until then, only the replicas can serve it."""
        since = time.monotonic()

        def have_written() -> bool:
            recent = itertools.takewhile(lambda event: event.ended > since, reversed(self.history.events))
            wrote = {
                event.worker
                for event in recent
                if event.operation is Operation.WRITE and event.value is not None and event.began > since
            }
            return wrote >= set(self.history.workers)

        await until(have_written)

    @contextlib.contextmanager
    def _disturbing(
        self, name: str, *servers: LocalServer, without_primary: bool = False
    ) -> collections.abc.Iterator[None]:
        began = time.monotonic()
        yield
        self.history.disturbances.append(
            Disturbance(
                name=name,
                ports=frozenset(server.port for server in servers),
                began=began,
                ended=time.monotonic(),
                without_primary=without_primary,
            )
        )


Schedule = collections.abc.Callable[[Faults], collections.abc.Awaitable[None]]
"""The faults of one round, in order."""


async def _configure(server: LocalServer, setting: str) -> None:
    await asyncio.to_thread(server.execute, f"ALTER SYSTEM {setting}; SELECT pg_reload_conf();")


async def _received(server: LocalServer) -> int:
    return int(await asyncio.to_thread(server.execute, "SELECT pg_last_wal_receive_lsn() - '0/0'"))


LATE: typing.Final = 300
"""Milliseconds by which one replica is always behind; less than a bounded read allows."""
CALM: typing.Final = 1.0
"""Seconds between two faults, in which the servers recover."""


async def interrupted_while_paused(faults: Faults, interruption: Interruption, *replicas: LocalServer) -> None:
    """Interrupt commits while no replica has their writes."""
    async with faults.paused(*replicas):
        await faults.interrupt_commits(interruption, seconds=1.5)
        await asyncio.sleep(1.0)


async def everything(faults: Faults) -> None:
    """One round of all faults, with one replica slightly behind all the time."""
    late, other = faults.shuffled_replicas()
    async with faults.lagging(late, milliseconds=LATE):
        for fault in (
            functools.partial(faults.pause, other, seconds=1.5),
            functools.partial(faults.pause, late, other, seconds=3.5),
            functools.partial(interrupted_while_paused, faults, "lost", late, other),
            functools.partial(interrupted_while_paused, faults, "cancelled", late, other),
            functools.partial(faults.restart, other),
            functools.partial(faults.crash, late),
            functools.partial(faults.crash, other, seconds=1.5),
            functools.partial(faults.freeze, other, seconds=4.0),
            functools.partial(faults.fall_back, other, seconds=1.5),
        ):
            await asyncio.sleep(CALM)
            await fault()
    await asyncio.sleep(CALM)
    await faults.switch_over()
    await asyncio.sleep(CALM)


async def lag_and_pause(faults: Faults) -> None:
    """Run ordinary events: one replica is slightly behind, and once both are for a few seconds."""
    late, other = faults.shuffled_replicas()
    async with faults.lagging(late, milliseconds=LATE):
        await asyncio.sleep(CALM)
        await faults.pause(late, other, seconds=3.5)
        await asyncio.sleep(CALM)

"""One history: a variant of the application, its clients, and the faults of its servers meanwhile."""

import asyncio
import collections.abc
import time
import typing

from tests.history.application import WorkerSettings
from tests.history.clients import Clients
from tests.history.events import History
from tests.history.faults import Faults, Schedule
from tests.history.workers import working


WORKERS: typing.Final = 2

LAG: typing.Final = 0.5
"""Maximum age of a bounded read, in seconds."""
PIN: typing.Final = 2.0
"""Seconds for which the variant `pin` reads from the primary after a write."""
GRACE: typing.Final = 5.0
"""Seconds after a disturbance until every worker has noticed its end.

A server that was down is probed every two seconds, and has to answer twice.
"""


async def record(  # noqa: PLR0913  # each is one fact, by its name
    variant: str,
    faults: Faults,
    schedule: Schedule,
    *,
    log: typing.IO[bytes],
    operations: int = 0,
    seconds: float = 60.0,
    pause: float = 0.0,
    progress: collections.abc.Callable[[int], None] = lambda _: None,
) -> History:
    """Run one experiment and return its history.

    Args:
        variant: the application.
        faults: the servers and their faults.
        schedule: the faults of one round; repeated until there are enough operations.
        log: receives the output of the workers.
        operations: the minimum number.
        pause: seconds between two operations of a client.
        seconds: no further round begins after this time.
        progress: is called regularly with the number of operations so far.

    """
    history = faults.history = History()
    await asyncio.to_thread(_create_registers, faults)
    settings = WorkerSettings(
        variant=variant,
        primary=faults.primary.url,
        replicas=[replica.url for replica in faults.replicas],
        lag=LAG,
        pin=PIN,
    )
    deadline = time.monotonic() + seconds
    async with working(settings, count=WORKERS, log=log) as found, asyncio.TaskGroup() as group:
        history.ports, history.workers = found
        clients = Clients(history, faults.look, pause=pause)
        group.create_task(clients.work())
        reporter = group.create_task(_report(history, progress))
        while True:
            await schedule(faults)
            if len(history.events) >= operations or time.monotonic() >= deadline:
                break
        clients.stop()
        reporter.cancel()
    return history


def _create_registers(faults: Faults) -> None:
    names = ", ".join(f"('{name}')" for name in Clients.registers())
    faults.primary.execute(
        f"""
        DROP TABLE IF EXISTS registers;
        CREATE TABLE registers (key text PRIMARY KEY, value bigint NOT NULL DEFAULT 0);
        INSERT INTO registers (key) VALUES {names};
        CHECKPOINT;
        """  # noqa: S608  # the names are ours
    )
    written = faults.primary.execute("SELECT pg_current_wal_flush_lsn()")
    question = f"DO $$ BEGIN WHILE pg_last_wal_replay_lsn() < '{written}' LOOP PERFORM pg_sleep(0.01); END LOOP; END $$"
    for replica in faults.replicas:
        # A crash takes a replica back to this point at most, so its readers always find the registers.
        replica.execute(f"{question}; CHECKPOINT;")


async def _report(history: History, progress: collections.abc.Callable[[int], None]) -> None:
    while True:
        progress(len(history.events))
        await asyncio.sleep(0.5)

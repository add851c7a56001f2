"""Clients that repeat an operation without a pause, and their results."""

import asyncio
import collections.abc
import time
import typing

from benchmarks.results import Sample


LEAD_IN: typing.Final = 0.2
"""Share of a round before counting starts, in which idle connections are used again and processes wake up."""

Operation = collections.abc.Callable[[int], collections.abc.Awaitable[bool]]


async def closed_loop(
    operation: Operation,
    cpu: collections.abc.Callable[[], collections.abc.Awaitable[float]],
    *,
    clients: int,
    seconds: float,
) -> Sample:
    """Let clients repeat an operation for a given time; return their results once all have finished.

    Every started operation is counted, and the time until the last one ended: clients that run in step complete their
    operations in bursts.

    Args:
        operation: receives the number of the client, and returns whether it succeeded.
        cpu: returns the processor time of the contender's process, in seconds.
        clients: the number of concurrent clients.
        seconds: no client starts another operation after this time; each runs at least one.

    """
    await _repeat(operation, clients, seconds * LEAD_IN)
    used, started = await cpu(), time.perf_counter()
    succeeded = await _repeat(operation, clients, seconds)
    wall = time.perf_counter() - started
    return Sample(sum(succeeded), len(succeeded) - sum(succeeded), wall, await cpu() - used)


async def _repeat(operation: Operation, clients: int, seconds: float) -> list[bool]:
    succeeded: list[bool] = []
    until = time.perf_counter() + seconds

    async def client(number: int) -> None:
        succeeded.append(await operation(number))
        while time.perf_counter() < until:
            succeeded.append(await operation(number))

    await asyncio.gather(*map(client, range(clients)))
    return succeeded

"""Clients that each do one operation after another, and what is counted of it."""

import asyncio
import collections.abc
import dataclasses
import time
import typing


LEAD_IN: typing.Final = 0.2
"""Share of a run before the counting: connections that were idle are used, and the processes are awake."""

Operation = collections.abc.Callable[[int], collections.abc.Awaitable[bool]]


@dataclasses.dataclass(kw_only=True, slots=True)
class Count:
    """What happened from the moment all clients began until the last of them had ended.

    Every operation that was begun is counted, and all the time it took, so what was done and the time belong together
    however the operations of many clients fall into step.
    """

    done: int = 0
    failed: int = 0
    wall: float = 0.0
    everything: int = 0
    """Operations of the whole run, those of the lead-in included."""


async def closed_loop(operation: Operation, *, clients: int, seconds: float) -> Count:
    """Let clients do an operation, which says whether it succeeded, for so long, and end what they have begun.

    Args:
        operation: takes the number of the client.
        clients: how many at once.
        seconds: after which nobody begins another one; each does one at least.

    """
    lead_in = await _work(operation, clients, seconds * LEAD_IN)
    count = await _work(operation, clients, seconds)
    count.everything += lead_in.everything
    return count


async def _work(operation: Operation, clients: int, seconds: float) -> Count:
    count = Count()
    started = time.perf_counter()

    async def client(number: int) -> None:
        while True:
            succeeded = await operation(number)
            count.everything += 1
            count.done += succeeded
            count.failed += not succeeded
            if time.perf_counter() - started >= seconds:
                return

    await asyncio.gather(*map(client, range(clients)))
    count.wall = time.perf_counter() - started
    return count

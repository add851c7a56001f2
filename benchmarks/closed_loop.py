"""Clients that each do one operation after another, and what is counted of it."""

import asyncio
import collections.abc
import dataclasses
import time
import typing


LEAD_IN: typing.Final = 0.2
"""Share of a run before the counting: connections that were idle are used once, and all clients come to work."""


@dataclasses.dataclass(kw_only=True, slots=True)
class Count:
    """What happened between the first completion after the lead-in and the last one before the end.

    So neither the start of many clients at once nor the wait for the last of them is counted.
    """

    done: int = 0
    failed: int = 0
    wall: float = 0.0
    everything: int = 0
    """Operations of the whole run, the uncounted ones included."""


async def closed_loop(
    operation: collections.abc.Callable[[int], collections.abc.Awaitable[bool]], *, clients: int, seconds: float
) -> Count:
    """Let clients do an operation, which says whether it succeeded, for so long.

    Args:
        operation: takes the number of the client.
        clients: how many at once.
        seconds: how long is counted, about.

    """
    count = Count()
    counting_from = time.perf_counter() + seconds * LEAD_IN
    deadline = counting_from + seconds
    first: float | None = None
    now = 0.0

    async def client(number: int) -> None:
        nonlocal first, now
        # With as many as there are clients: the answers of a slow server may come all at once.
        while now < deadline or count.done + count.failed < clients:
            succeeded = await operation(number)
            now = time.perf_counter()
            count.everything += 1
            if not succeeded:
                count.failed += 1
            elif first is None:
                first = now if now >= counting_from else None
            elif now < deadline or count.done < clients:
                count.done += 1
                count.wall = now - first

    await asyncio.gather(*map(client, range(clients)))
    return count

"""Timeouts for the answers of servers that exclude the time in which our own event loop was late."""

import asyncio
import typing


TICKS: typing.Final = 8
"""The number of parts of a timeout; a part counts fully only if it ended about in time."""

LATE: typing.Final = 1.5
"""A part that took this many times its length was late: the cause may be the loop, not the server."""


async def wait_punctually(future: asyncio.Future[typing.Any], *, timeout: float) -> bool:  # noqa: ASYNC109  # not of one await
    """Wait for an answer; return whether it came in time.

    While the event loop is late, an answer may have arrived unread. Such time counts for a quarter, so that a silent
    server is still detected, however busy the process is.
    """
    loop = asyncio.get_running_loop()
    tick = timeout / TICKS
    left = timeout
    while left > 0 and not future.done():
        began = loop.time()
        await asyncio.wait({future}, timeout=tick)
        left -= tick if loop.time() - began < tick * LATE else tick / 4
    for _ in range(3):  # an answer that arrived at the last moment needs some iterations of the loop
        if not future.done():
            await asyncio.sleep(0)
    return future.done()

"""Timeouts for answers of servers, which do not count the time in which our own event loop was late."""

import asyncio
import typing


TICKS: typing.Final = 8
"""Into how many parts a timeout is divided; only a part that ended about in time counts fully."""

LATE: typing.Final = 1.5
"""A part that took so many times as long as it should was late: the loop, not the server, may be to blame."""


async def wait_punctually(future: asyncio.Future[typing.Any], *, timeout: float) -> bool:  # noqa: ASYNC109  # not of one await
    """Wait for an answer; return whether it came in time.

    While the event loop is late, an answer may lie there unread. Such time counts for a quarter, so that a server that
    is silent for good is found all the same, however busy the process is.
    """
    loop = asyncio.get_running_loop()
    tick = timeout / TICKS
    left = timeout
    while left > 0 and not future.done():
        began = loop.time()
        await asyncio.wait({future}, timeout=tick)
        left -= tick if loop.time() - began < tick * LATE else tick / 4
    for _ in range(3):  # what has arrived in the last moment needs some turns of the loop to get here
        if not future.done():
            await asyncio.sleep(0)
    return future.done()

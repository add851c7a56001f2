"""The one way in which tests wait: for a condition, with a bound."""

import asyncio
import collections.abc
import inspect


Condition = collections.abc.Callable[[], bool | collections.abc.Awaitable[bool]]


async def until(condition: Condition, *, seconds: float = 30.0) -> None:
    """Wait until a condition holds, which another process or task makes true; it may be asynchronous.

    Raises:
        TimeoutError: it does not hold in time.

    """
    async with asyncio.timeout(seconds):
        while not await _holds(condition):  # noqa: ASYNC110  # nothing announces what another process does
            await asyncio.sleep(0.01)


async def _holds(condition: Condition) -> bool:
    answer = condition()
    return await answer if inspect.isawaitable(answer) else answer

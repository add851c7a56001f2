"""Waiting in tests: for a condition, with a timeout, in a coroutine or in a thread."""

import asyncio
import collections.abc
import inspect

from modern_di_replicas.testing.waiting import wait_until


Condition = collections.abc.Callable[[], bool | collections.abc.Awaitable[bool]]


async def until(condition: Condition, *, seconds: float = 30.0) -> None:
    """Wait until a condition holds that another process or task fulfils; it may be asynchronous.

    Raises:
        TimeoutError: it does not hold in time.

    """
    async with asyncio.timeout(seconds):
        while not await _holds(condition):  # noqa: ASYNC110  # nothing announces what another process does
            await asyncio.sleep(0.01)


async def _holds(condition: Condition) -> bool:
    answer = condition()
    return await answer if inspect.isawaitable(answer) else answer


def wait_for(condition: collections.abc.Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Wait in a blocking thread until a condition holds that another process or thread fulfils.

    Raises:
        TimeoutError: it does not hold in time.

    """
    if not wait_until(condition, timeout=seconds):
        raise TimeoutError

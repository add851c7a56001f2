"""Checkouts of the primary's pool while the primary changes."""

import asyncio
import time
import typing

import pytest
from sqlalchemy.util import greenlet_spawn

from modern_di_replicas.cluster.failures import Failure, blame
from modern_di_replicas.cluster.pools.fenced import RETRIES, Fence, FencedPool


async def test_a_checkout_connects_again_after_a_change_but_not_for_ever() -> None:
    """INVARIANT: a primary that comes and goes holds no checkout; after `RETRIES` changes the error is raised."""
    attempts: list[int] = []

    def fail() -> typing.NoReturn:
        attempts.append(len(attempts))
        asyncio.get_running_loop().call_soon(fence.declare_up)  # after the checkout has begun to wait
        refused = ConnectionRefusedError()
        blame(refused, Failure.DOWN)
        raise refused

    fence = Fence()
    fence.loss_timeout = 60.0
    pool = FencedPool(fail)
    pool.fence = fence

    with pytest.raises(ConnectionRefusedError):
        await greenlet_spawn(pool.connect)

    assert len(attempts) == RETRIES + 1


async def test_a_checkout_that_has_waited_for_a_silent_primary_does_not_wait_again() -> None:
    """INVARIANT: a writer gets its error as soon after it came as any other; what refuses it is waited for."""
    fence = Fence()
    fence.loss_timeout = 60.0
    long_ago = time.monotonic() - fence.loss_timeout

    fence.declare_down(timeout=1.0, reason="no answer", is_silent=True)
    async with asyncio.timeout(30):
        assert not await fence.may_try_again(long_ago)

    fence.declare_down(timeout=1.0, reason="connection refused", is_silent=False)
    waiting = asyncio.ensure_future(fence.may_try_again(long_ago))
    await asyncio.sleep(0)
    assert not waiting.done()
    fence.declare_up()
    async with asyncio.timeout(30):
        assert await waiting

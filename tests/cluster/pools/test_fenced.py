"""Checkouts of the primary's pool while the primary changes."""

import asyncio
import typing

import pytest
from sqlalchemy.util import greenlet_spawn

from modern_di_replicas.cluster.pools.fenced import RETRIES, Fence, FencedPool


async def test_a_checkout_connects_again_after_a_change_but_not_for_ever() -> None:
    """INVARIANT: a primary that comes and goes holds no checkout; after `RETRIES` changes the error is raised."""
    attempts: list[int] = []

    def fail() -> typing.NoReturn:
        attempts.append(len(attempts))
        asyncio.get_running_loop().call_soon(fence.declare_up)  # after the checkout has begun to wait
        raise ConnectionRefusedError

    fence = Fence()
    fence.patience = 60.0
    pool = FencedPool(fail)
    pool.fence = fence

    with pytest.raises(ConnectionRefusedError):
        await greenlet_spawn(pool.connect)

    assert len(attempts) == RETRIES + 1

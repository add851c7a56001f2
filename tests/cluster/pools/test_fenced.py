"""Checkouts of the primary's pool while the primary changes."""

import asyncio
import typing

import pytest
from sqlalchemy.util import greenlet_spawn

from modern_di_replicas.cluster.failures import Failure, note_failure
from modern_di_replicas.cluster.pools.fence import Fence
from modern_di_replicas.cluster.pools.fenced import RETRIES, FencedPool
from modern_di_replicas.cluster.pools.outage import Outage


async def test_a_checkout_connects_again_after_a_change_but_not_for_ever() -> None:
    """INVARIANT: a primary that changes repeatedly holds no checkout; after `RETRIES` changes the error is raised."""
    attempts: list[int] = []

    def fail() -> typing.NoReturn:
        attempts.append(len(attempts))
        asyncio.get_running_loop().call_soon(pool.outage.declare_up)  # after the checkout has begun to wait
        refused = ConnectionRefusedError()
        note_failure(refused, Failure.DOWN)
        raise refused

    pool = FencedPool(fail)
    pool.fence, pool.outage = Fence(), Outage()
    pool.outage.timeout = 60.0

    with pytest.raises(ConnectionRefusedError):
        await greenlet_spawn(pool.connect)

    assert len(attempts) == RETRIES + 1

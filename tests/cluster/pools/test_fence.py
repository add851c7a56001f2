"""The fence for a former primary; `monitoring/test_monitor.py` and `sync/test_engines.py` use real servers."""

import asyncio

import pytest

from modern_di_replicas.cluster.pools.fence import Fence
from modern_di_replicas.errors import PrimaryUnavailable


async def test_a_raised_fence_holds_checkouts_until_it_is_lifted() -> None:
    """All waiting checkouts continue when the new primary is known."""
    fence = Fence()
    fence.check()
    fence.raise_fence(60.0)
    waiting = [asyncio.ensure_future(fence.passed()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    with pytest.raises(PrimaryUnavailable, match="older timeline"):
        fence.check()

    fence.lift()
    async with asyncio.timeout(30):
        await asyncio.gather(*waiting)
    fence.check()


async def test_a_fence_that_is_not_lifted_in_time_refuses() -> None:
    """A checkout fails after the timeout of the fence, and later ones fail at once."""
    fence = Fence()
    fence.raise_fence(0.0)
    for _ in range(2):
        with pytest.raises(PrimaryUnavailable):
            await fence.passed()


@pytest.mark.parametrize("is_raised", [False, True])
async def test_a_forked_process_keeps_the_fence_and_forgets_the_waiting_checkouts(*, is_raised: bool) -> None:
    """The child must not wake tasks of its parent's event loop."""
    fence = Fence()
    if is_raised:
        fence.raise_fence(60.0)
    of_parent = asyncio.ensure_future(fence.passed())
    await asyncio.sleep(0)

    fence.forget_waiting()
    assert fence.is_raised is is_raised
    fence.lift()
    await asyncio.sleep(0)
    assert of_parent.done() is not is_raised
    of_parent.cancel()

import asyncio

import pytest

from benchmarks.closed_loop import closed_loop


async def test_the_time_of_one_operation_is_that_of_a_client_shared_by_all() -> None:
    async def nap(_: int) -> bool:
        await asyncio.sleep(0.01)
        return True

    count = await closed_loop(nap, clients=4, seconds=0.2)
    assert count.wall / count.done == pytest.approx(0.01 / 4, rel=0.4)
    assert count.everything > count.done


async def test_what_fails_is_not_done() -> None:
    async def fail(_: int) -> bool:
        await asyncio.sleep(0.001)
        return False

    count = await closed_loop(fail, clients=2, seconds=0.02)
    assert (count.done, count.failed) == (0, count.everything)

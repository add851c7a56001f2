import asyncio
import time

from modern_di_replicas.cluster.punctual import LATE, TICKS, wait_punctually


async def test_an_answer_ends_the_wait() -> None:
    """It may arrive after several ticks."""
    answer = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.05, answer.set_result, None)

    assert await wait_punctually(answer, timeout=30.0)


async def test_silence_ends_the_wait_in_time() -> None:
    """The caller decides what happens to the question."""
    answer = asyncio.get_running_loop().create_future()

    assert not await wait_punctually(answer, timeout=0.05)
    assert not answer.done()


async def test_time_in_which_the_loop_was_late_counts_for_a_quarter() -> None:
    """INVARIANT: an answer that is unread because the loop is busy is not treated as silence."""
    loop = asyncio.get_running_loop()
    answer = loop.create_future()
    began, timeout = loop.time(), 0.2

    def work() -> None:
        time.sleep(2 * LATE * timeout / TICKS)  # work that blocks the loop
        if not answer.done():
            loop.call_later(0, work)

    loop.call_soon(work)
    loop.call_later(1.5 * timeout, answer.set_result, None)

    assert await wait_punctually(answer, timeout=timeout)
    assert loop.time() - began > timeout

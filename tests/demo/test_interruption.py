import asyncio
import signal
import typing

import pytest

from modern_di_replicas.demo.interruption import SIGNALS, interruption_of


def this_task() -> asyncio.Task[typing.Any]:
    return typing.cast("asyncio.Task[typing.Any]", asyncio.current_task())


async def work_and_clean_up(number: signal.Signals) -> None:
    try:
        signal.raise_signal(number)
        await asyncio.sleep(10)  # a long task
    finally:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0.02)  # a slow clean-up


@pytest.mark.parametrize("number", SIGNALS)
async def test_the_first_signal_cancels_and_later_ones_do_not_disturb_the_cleaning_up(number: signal.Signals) -> None:
    """INVARIANT: nothing interrupts the clean-up; otherwise database servers would keep running."""
    with interruption_of(this_task()) as interruption:
        with pytest.raises(asyncio.CancelledError):
            await work_and_clean_up(number)
        assert interruption.signal is number


async def test_an_awaited_signal_cancels_nothing() -> None:
    """Ctrl-C is the normal end of serving."""
    with interruption_of(this_task()) as interruption:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        async with asyncio.timeout(10):
            await interruption.wait()
    assert this_task().cancelling() == 0


async def test_the_signal_handlers_of_before_are_put_back() -> None:
    """A program that calls the demo keeps its own handlers."""
    before = [signal.getsignal(number) for number in SIGNALS]
    with interruption_of(this_task()):
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before

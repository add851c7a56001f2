import asyncio
import itertools

import pytest

from benchmarks import closed_loop as module
from benchmarks.closed_loop import closed_loop


class Clock:
    """A clock that advances only while clients work."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    async def work(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


async def cpu() -> float:
    return 0.0


@pytest.mark.parametrize(("clients", "seconds"), list(itertools.product((1, 7, 100), (0.001, 0.12, 1.0))))
async def test_the_time_of_an_operation_does_not_depend_on_clients_in_step(
    clock: Clock, clients: int, seconds: float
) -> None:
    """INVARIANT: clients that start together run in step, so operations complete in bursts.

    Counting between two bursts would make an operation look faster than it is.
    """

    async def operation(_: int) -> bool:
        for _step in range(4):
            await clock.work(0.0005)
        return True

    count = await closed_loop(operation, cpu, clients=clients, seconds=seconds)
    assert count.wall / count.done == pytest.approx(0.002)
    assert count.wall >= seconds
    assert count.done >= clients


async def test_the_first_use_of_a_connection_is_not_counted(clock: Clock) -> None:
    """Neither its duration nor its processor time."""
    connected = set()

    async def operation(number: int) -> bool:
        if number not in connected:
            connected.add(number)
            await clock.work(10.0)
        await clock.work(0.001)
        return True

    async def used() -> float:
        return clock.now / 2

    count = await closed_loop(operation, used, clients=3, seconds=0.1)
    assert count.wall / count.done == pytest.approx(0.001)
    assert count.cpu == pytest.approx(count.wall / 2)


async def test_an_operation_that_fails_is_not_done(clock: Clock) -> None:
    """A contender that fails fast is not fast."""

    async def fail(_: int) -> bool:
        await clock.work(0.001)
        return False

    count = await closed_loop(fail, cpu, clients=2, seconds=0.02)
    assert (count.done, count.failed) == (0, 20)

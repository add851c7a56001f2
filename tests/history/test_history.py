"""A short version of `make history`: the results of clients while replicas lag and the primary changes."""

import collections
import collections.abc
import pathlib

import pytest

from modern_di_replicas.testing import LocalCluster
from tests.history.application import FLASK, FORGETFUL
from tests.history.checker import bounded_staleness, check, read_your_writes, reads_answered, report
from tests.history.events import History, Operation
from tests.history.experiment import GRACE, LAG, record
from tests.history.faults import LATE, Faults, Schedule
from tests.history.interrupted import Interruption
from tests.waiting import until


PAUSE = 0.03
INTERRUPTIONS: tuple[Interruption, ...] = ("lost", "cancelled")


@pytest.fixture(scope="module")
def faults() -> collections.abc.Iterator[Faults]:
    """Yield servers whose commits wait for one replica, so that a failover loses nothing."""
    with LocalCluster(replicas=2, synchronous=True) as cluster:
        yield Faults(cluster)


async def recorded(variant: str, faults: Faults, schedule: Schedule, folder: pathlib.Path) -> History:
    with (folder / "workers.log").open("wb") as log:
        return await record(variant, faults, schedule, log=log, pause=PAUSE)


def answered(history: History, operations: int) -> collections.abc.Callable[[], bool]:
    """Return whether a number of operations has completed since."""
    wanted = len(history.events) + operations
    return lambda: len(history.events) >= wanted


async def something_of_everything(faults: Faults) -> None:
    late, other = faults.shuffled_replicas()
    async with faults.lagging(late, milliseconds=LATE):
        await until(answered(faults.history, 100))
        async with faults.paused(late, other):
            await until(answered(faults.history, 100))
            for interruption in INTERRUPTIONS:
                await faults.interrupt_commits(interruption, seconds=0.5)
        await faults.crash(other)
        await until(answered(faults.history, 100))
        await faults.freeze(other, seconds=2.5)
        await faults.fall_back(other, seconds=0.8)
        await until(answered(faults.history, 100))
    await faults.switch_over()
    await until(answered(faults.history, 100))


@pytest.mark.parametrize("variant", ["ours", pytest.param(FLASK, marks=pytest.mark.slow)])
async def test_clients_of_this_library_see_no_violation(faults: Faults, tmp_path: pathlib.Path, variant: str) -> None:
    """INVARIANT: with two workers, a lagging replica, a pause, a crash and a failover, no answer is wrong."""
    history = await recorded(variant, faults, something_of_everything, tmp_path)

    violations = check(history, lag=LAG, grace=GRACE)
    assert not violations, report(violations, history, grace=GRACE)
    places = collections.Counter(
        (event.operation, event.by_replica) for event in history.events if event.value is not None
    )
    for operation in (Operation.READ, Operation.BOUNDED):
        assert places[operation, True], "the replicas were used"
        assert places[operation, False], "and so was the primary, where they were not fresh enough"


async def dropped_until_it_shows(faults: Faults) -> None:
    faults.primary.execute("DROP TABLE registers")
    await until(lambda: bool(reads_answered(faults.history, grace=GRACE)))


@pytest.mark.parametrize("variant", ["ours", FLASK])
async def test_a_failed_read_is_reported_with_the_traceback_of_the_application(
    faults: Faults, tmp_path: pathlib.Path, variant: str
) -> None:
    """Otherwise a failure that occurs once in a hundred runs, on a busy machine, could not be explained."""
    history = await recorded(variant, faults, dropped_until_it_shows, tmp_path)

    reported = report(reads_answered(history, grace=GRACE), history, grace=GRACE)
    assert "Traceback (most recent call last):" in reported
    assert "UndefinedTable" in reported


async def paused_until_it_shows(faults: Faults) -> None:
    async with faults.paused(*faults.replicas):
        await until(lambda: bool(read_your_writes(faults.history) and bounded_staleness(faults.history, lag=LAG)))


async def interrupted_until_it_shows(faults: Faults) -> None:
    async with faults.paused(*faults.replicas):
        faults.history.interruption = "lost"
        try:
            await until(lambda: bool(read_your_writes(faults.history)))
        finally:
            faults.history.interruption = ""


async def test_a_lost_commit_answer_that_does_not_count_as_a_write_is_found(
    faults: Faults, tmp_path: pathlib.Path
) -> None:
    """The harness detects this injected bug: the row is committed, and its client reads a replica."""
    assert read_your_writes(await recorded(FORGETFUL, faults, interrupted_until_it_shows, tmp_path))


@pytest.mark.parametrize("variant", ["naive", pytest.param("pin", marks=pytest.mark.slow)])
async def test_clients_of_hand_written_routing_see_violations(
    faults: Faults, tmp_path: pathlib.Path, variant: str
) -> None:
    """The same clients in the same harness, which can therefore fail.

    A pin of two seconds ends before a longer pause does.
    """
    history = await recorded(variant, faults, paused_until_it_shows, tmp_path)

    assert read_your_writes(history)
    assert bounded_staleness(history, lag=LAG)

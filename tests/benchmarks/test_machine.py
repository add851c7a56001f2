"""The contenders get a reserved processor where possible, and other load is detected."""

import collections.abc
import subprocess
import sys
import typing

import psutil
import pytest

from benchmarks import machine
from tests.waiting import wait_for


class Process:
    """A process on a system with processor affinity."""

    chosen: list[int]

    def cpu_affinity(self, chosen: list[int] | None = None) -> list[int]:
        if chosen is not None:
            type(self).chosen = chosen
        return type(self).chosen


@pytest.mark.parametrize(("available", "apart", "others"), [([3, 0, 2], [0], [2, 3]), ([1], [], [1])])
def test_one_processor_is_reserved_for_the_contenders(
    monkeypatch: pytest.MonkeyPatch, available: list[int], apart: list[int], others: list[int]
) -> None:
    """A single processor is shared; afterwards the process has its former affinity again."""
    monkeypatch.setattr(psutil, "Process", Process)
    monkeypatch.setattr(Process, "chosen", available, raising=False)
    with machine.divided() as found:
        assert found == apart
        assert sorted(Process.chosen) == others
        machine.keep_to(found)
        assert sorted(Process.chosen) == (apart or others)
    assert sorted(Process.chosen) == sorted(available)


def test_a_system_without_processor_affinity_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example macOS."""
    monkeypatch.setattr(psutil, "Process", object)
    with machine.divided() as found:
        assert found == []
        machine.keep_to(found)


class Load:
    """Processor time of the machine and of the benchmark in seconds, set by a test."""

    now = total = own = 0.0

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "time", self)
        monkeypatch.setattr(psutil, "cpu_times", lambda: _times(self.total))

    pid = 1

    def monotonic(self) -> float:
        return self.now

    def children(self, *, recursive: bool) -> list[typing.Self]:
        assert recursive
        return []

    def cpu_times(self) -> typing.Any:
        return _times(self.own)

    def pass_time(self, *, own: float, others: float) -> None:
        self.now, self.total, self.own = self.now + 1, self.total + own + others, self.own + own


def _times(seconds: float) -> typing.Any:
    return type("Times", (), {"user": seconds, "system": 0.0, "nice": 0.0})


@pytest.mark.parametrize(
    ("others", "is_busy"),
    [
        pytest.param([0.0] * 20, False, id="quiet"),
        pytest.param([0.2] * 20, False, id="background"),
        pytest.param([0.0] * 19 + [1.0], False, id="one-interval-of-twenty"),
        pytest.param([0.0] * 16 + [1.0] * 4, True, id="one-interval-in-five"),
        pytest.param([1.0] * 20, True, id="always"),
    ],
)
def test_a_machine_is_busy_when_other_programs_use_it(
    monkeypatch: pytest.MonkeyPatch, others: collections.abc.Sequence[float], *, is_busy: bool
) -> None:
    """The benchmark's own processor time does not count."""
    load = Load(monkeypatch)
    watched = machine.OtherPrograms(lambda: [typing.cast(psutil.Process, load)])
    for each in others:
        load.pass_time(own=1.5, others=each)
        watched.look()
    if not is_busy:
        watched.check()
        return
    with pytest.raises(machine.BusyMachineError, match=f"of {len(others)} intervals other programs used"):
        watched.check()


def test_a_real_process_that_burns_a_processor_is_noticed() -> None:
    """A child process would count as part of the benchmark, so the roots are empty here."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as burning:
        try:
            watched = machine.OtherPrograms(list)

            def has_looked() -> bool:
                watched.look()
                return bool(watched.intervals)

            wait_for(has_looked)
            with pytest.raises(machine.BusyMachineError):
                watched.check()
        finally:
            burning.kill()

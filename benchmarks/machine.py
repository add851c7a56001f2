"""The machine of a run: its description, the division of its processors, and the load by other programs."""

import collections.abc
import contextlib
import datetime as dt
import pathlib
import platform
import statistics
import time
import typing

import psutil


BUSY: typing.Final = 0.25
"""Processors that other programs may use on average over an interval; above, its measurements are not reliable."""
BUSY_SHARE: typing.Final = 0.1
"""Share of the intervals that may be busy: a median of many rounds tolerates a few."""
SHORT: typing.Final = 0.5
"""Seconds below which an interval is not evaluated: processor time is counted in ticks."""


class BusyMachineError(Exception):
    """Other programs use the machine, so its measurements would be wrong."""


def describe(postgresql: str, versions: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return the facts needed to assess the figures.

    Args:
        postgresql: the version of the servers.
        versions: those of the packages, by environment.

    """
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "processor": f"{_processor()}, {psutil.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "PostgreSQL": postgresql,
        **{
            f"packages, {environment}": ", ".join(f"{name} {version}" for name, version in found.items())
            for environment, found in versions.items()
        },
    }


def _processor() -> str:
    information = pathlib.Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


@contextlib.contextmanager
def divided() -> collections.abc.Iterator[list[int]]:
    """Reserve one processor for the contenders and return it in a list, which is empty if that is not possible.

    A server process on its client's processor answers up to three times faster than one on another processor. The
    scheduler's choice changes during a run, so it would dominate the results. This process and its children use the
    other processors.
    """
    process = psutil.Process()
    available = sorted(process.cpu_affinity() or []) if hasattr(process, "cpu_affinity") else []
    if len(available) < 2:
        yield []
        return
    process.cpu_affinity(available[1:])
    try:
        yield available[:1]
    finally:
        process.cpu_affinity(available)


def keep_to(processors: list[int]) -> None:
    """Run this process and its children on these processors only, or on all if the list is empty."""
    if processors:
        psutil.Process().cpu_affinity(processors)


class OtherPrograms:
    """Measures how much processor time programs other than the benchmark use.

    Args:
        roots: returns the processes of the benchmark; their children count as well.

    """

    def __init__(self, roots: collections.abc.Callable[[], collections.abc.Iterable[psutil.Process]]) -> None:
        self._roots = roots
        self.intervals: list[float] = []
        """Processors that they used, on average over each interval."""
        self._at, self._total, self._own = self._look()

    def look(self) -> None:
        """End an interval. Called between measurements, because it takes some time itself."""
        at, total, own = self._look()
        if at - self._at < SHORT:
            return
        # Only the total includes short-lived programs.
        benchmark = sum(max(0.0, seconds - self._own.get(pid, 0.0)) for pid, seconds in own.items())
        self.intervals.append(max(0.0, total - self._total - benchmark) / (at - self._at))
        self._at, self._total, self._own = at, total, own

    def check(self) -> None:
        """Raise if the machine was busy.

        Raises:
            BusyMachineError: other programs used too much processor time in too many intervals.

        """
        busy = [used for used in self.intervals if used > BUSY]
        if len(busy) > BUSY_SHARE * len(self.intervals):
            msg = (
                f"The machine is busy: in {len(busy)} of {len(self.intervals)} intervals other programs used more than "
                f"{BUSY:g} processors, {statistics.median(busy):.1f} in the median of these."
            )
            raise BusyMachineError(msg)

    def _look(self) -> tuple[float, float, dict[int, float]]:
        own = {}
        for root in self._roots():
            for process in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    own[process.pid] = times.user + times.system
        total = psutil.cpu_times()
        return time.monotonic(), total.user + total.nice + total.system, own


def check_quiet(seconds: float) -> None:
    """Observe the machine for a number of seconds.

    Raises:
        BusyMachineError: other programs use it.

    """
    others = OtherPrograms(lambda: [psutil.Process()])
    time.sleep(seconds)
    others.look()
    others.check()

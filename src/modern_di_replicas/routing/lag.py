"""Replication lag in seconds, measured on one clock. Pure."""

import bisect


class LsnHistory:
    """The positions of the primary over time, sampled by the monitor: lag is measured on one clock, without skew."""

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._times: list[float] = []
        self._lsns: list[int] = []

    def add(self, at: float, lsn: int) -> None:
        """Add a sample; an unchanged LSN only updates the time of the last one."""
        if len(self._lsns) > 1 and self._lsns[-1] == self._lsns[-2] == lsn:
            self._times[-1] = at
            return
        self._times.append(at)
        self._lsns.append(lsn)
        if len(self._lsns) > self._capacity:
            # Thin out the older half: a long lag needs no precision.
            half = self._capacity // 2
            # In this order: a concurrent reader finds a newer LSN for a time, never an older one.
            self._lsns[:half] = self._lsns[:half:2]
            self._times[:half] = self._times[:half:2]

    def clear(self) -> None:
        """Remove all samples: another primary has another history."""
        self._times.clear()
        self._lsns.clear()

    @property
    def last(self) -> tuple[float, int] | None:
        """The newest sample."""
        return (self._times[-1], self._lsns[-1]) if self._lsns else None

    @property
    def since(self) -> float | None:
        """When the oldest sample was taken."""
        return self._times[0] if self._times else None

    def first_since(self, at: float) -> int | None:
        """Return the LSN of the oldest sample that includes every write before `at`; None without one."""
        index = bisect.bisect_left(self._times, at)
        found = self._lsns[index : index + 1]  # at once: the monitor's thread may clear the history at any moment
        return found[0] if found else None

    def lag_seconds(self, at: float, lsn: int) -> float | None:
        """Return an upper bound for how long before `at` the primary was at `lsn`; None without old enough samples.

        0 when the primary had nothing newer at that time. Samples are one probe interval apart, so the true value may
        be smaller by that much.
        """
        known = bisect.bisect_right(self._times, at) or min(1, len(self._times))
        reached = bisect.bisect_right(self._lsns, lsn, hi=known)
        if reached == 0:
            return None  # it is older than the oldest sample
        return 0.0 if reached == known else at - self._times[reached - 1]

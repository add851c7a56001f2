"""Which of several equally good servers is next. Pure: no I/O, no clock, no SQLAlchemy, no modern-di."""

import collections.abc
import typing


class Weighted(typing.Protocol):
    """Something that wants a share of the requests in proportion to its weight."""

    @property
    def weight(self) -> int: ...


Candidate = typing.TypeVar("Candidate", bound=Weighted)


class WeightedRoundRobin(typing.Generic[Candidate]):
    """Takes turns, each candidate as often as its weight says, and evenly interleaved.

    The smooth weighted round-robin of nginx: in every round each candidate earns its weight, the richest is
    chosen and pays what all earned. Over the sum of the weights each is chosen exactly `weight` times.
    """

    def __init__(self, candidates: collections.abc.Sequence[Candidate]) -> None:
        self._candidates = candidates
        self._credits = [0] * len(candidates)
        self._total = sum(candidate.weight for candidate in candidates)

    def choose(self) -> Candidate:
        """Return the next candidate; there is at least one."""
        richest = 0
        for index, candidate in enumerate(self._candidates):
            self._credits[index] += candidate.weight
            if self._credits[index] > self._credits[richest]:
                richest = index
        self._credits[richest] -= self._total
        return self._candidates[richest]

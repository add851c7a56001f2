"""Which of several good servers is next. Pure: no I/O, no clock, no SQLAlchemy, no modern-di."""

import collections.abc
import typing


class Candidate(typing.Protocol):
    """A server that could be chosen."""

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> int: ...


CandidateT = typing.TypeVar("CandidateT", bound=Candidate)


class WeightedRoundRobin:
    """Takes turns, each candidate as often as its weight says, and evenly interleaved.

    The smooth weighted round-robin of nginx: at each choice every candidate earns its weight, the richest is
    chosen and pays what all earned. Over the sum of the weights each is chosen exactly `weight` times.
    """

    def __init__(self) -> None:
        self._credits: dict[str, int] = {}

    def choose(self, candidates: collections.abc.Sequence[CandidateT]) -> CandidateT:
        """Return the one whose turn it is; there is at least one. The candidates may change from call to call."""
        credit, earned = self._credits, 0
        richest = candidates[0]
        for candidate in candidates:
            earned += candidate.weight
            credit[candidate.name] = credit.get(candidate.name, 0) + candidate.weight
            if credit[candidate.name] > credit[richest.name]:
                richest = candidate
        credit[richest.name] -= earned
        return richest

"""Which of several good servers is next. Pure: no I/O, no clock, no SQLAlchemy, no modern-di."""

import collections.abc
import hashlib
import math
import random
import typing


class Candidate(typing.Protocol):
    """A server that could be chosen."""

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> int:
        """Its share, relative to the others; from 1."""

    @property
    def in_use(self) -> int:
        """How many of its connections are in use now."""

    @property
    def has_room(self) -> bool:
        """Whether it can give a connection without waiting."""


CandidateT = typing.TypeVar("CandidateT", bound=Candidate)


class Balancer(typing.Protocol):
    """Chooses one of several good servers; give your own as `ReplicationSettings(balancing=MyBalancer)`."""

    def choose(self, candidates: collections.abc.Sequence[CandidateT]) -> CandidateT:
        """Return one of the candidates; there is at least one, and they may differ from call to call."""


class RoundRobin:
    """Takes turns, each candidate as often as its weight says, and evenly interleaved.

    The smooth weighted round-robin of nginx: at each choice every candidate earns its weight, the richest is
    chosen and pays what all earned. Over the sum of the weights each is chosen exactly `weight` times.
    """

    def __init__(self) -> None:
        self._credits: dict[str, int] = {}

    def choose(self, candidates: collections.abc.Sequence[CandidateT]) -> CandidateT:
        """Return the one whose turn it is."""
        credit, earned = self._credits, 0
        richest = candidates[0]
        for candidate in candidates:
            name, weight = candidate.name, candidate.weight
            earned += weight
            credit[name] = credit.get(name, 0) + weight
            if credit[name] > credit[richest.name]:
                richest = candidate
        credit[richest.name] -= earned
        return richest


class LeastInUse:
    """Chooses the server with the fewest connections in use for its weight; of equals, the one whose turn it is."""

    def __init__(self) -> None:
        self._turns = RoundRobin()

    def choose(self, candidates: collections.abc.Sequence[CandidateT]) -> CandidateT:
        """Return one of the least used."""
        loads = [candidate.in_use / candidate.weight for candidate in candidates]
        least = min(loads)
        return self._turns.choose(
            [candidate for candidate, load in zip(candidates, loads, strict=True) if load == least]
        )


class Random:
    """Chooses at random, by weight: needs no memory, and many processes do not fall into step."""

    def __init__(self, source: random.Random | None = None) -> None:
        self._source = source or random.Random()  # noqa: S311  # for spreading, not for secrets

    def choose(self, candidates: collections.abc.Sequence[CandidateT]) -> CandidateT:
        """Return one of them, with the probability of its weight."""
        return self._source.choices(candidates, [candidate.weight for candidate in candidates])[0]


def with_affinity(key: str, candidates: collections.abc.Sequence[CandidateT]) -> CandidateT:
    """Return the same candidate for the same key, as long as it is there; each gets its weight's share of the keys.

    Rendezvous hashing: when a candidate goes, only its keys move; when it comes back, only they return.
    """

    def score(candidate: Candidate) -> float:
        digest = hashlib.blake2b(f"{key}\0{candidate.name}".encode(), digest_size=8).digest()
        fraction = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
        return -candidate.weight / math.log(fraction)

    return max(candidates, key=score)


STRATEGIES: typing.Final[dict[str, collections.abc.Callable[[], Balancer]]] = {
    "least-in-use": LeastInUse,
    "round-robin": RoundRobin,
    "random": Random,
}

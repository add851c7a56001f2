"""Choose one of several eligible servers. Pure: no I/O, no clock, no SQLAlchemy, no modern-di."""

import collections.abc
import functools
import hashlib
import math
import random
import typing


class Candidate(typing.Protocol):
    """An eligible server."""

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> int:
        """Its share, relative to the others; at least 1."""

    @property
    def in_use(self) -> int:
        """How many of its connections are in use or waited for now."""

    @property
    def has_room(self) -> bool:
        """Whether it can give a connection without waiting."""


CandidateT = typing.TypeVar("CandidateT", bound=Candidate)


class Balancer(typing.Protocol):
    """Chooses one of several eligible servers; pass your own as `ReplicationSettings(balancing=MyBalancer)`."""

    def choose(self, candidates: collections.abc.Sequence[CandidateT]) -> CandidateT:
        """Return one of the candidates, which may differ from call to call; not called when only one serves."""


class RoundRobin:
    """Takes turns in proportion to the weights, evenly interleaved.

    With equal weights this is plain round-robin. Otherwise it is the smooth weighted round-robin of nginx: each choice
    adds to the counter of every candidate its weight, and subtracts the sum of the weights from the highest one, which
    is chosen. In as many choices as the sum of the weights, each is chosen exactly `weight` times.
    """

    def __init__(self) -> None:
        self._turn = -1
        self._credits: dict[str, int] = {}

    def choose(self, candidates: collections.abc.Sequence[CandidateT]) -> CandidateT:
        """Return the next candidate."""
        if _weigh_the_same(candidates):
            self._turn = turn = (self._turn + 1) % len(candidates)  # another thread may change it at any moment
            return candidates[turn]
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
    """Chooses the server with the fewest connections in use relative to its weight; equals take turns.

    A connection that is waited for counts as used, so that waiting checkouts do not pile up at a slow server.
    """

    def __init__(self) -> None:
        self._turns = RoundRobin()

    def choose(self, candidates: collections.abc.Sequence[CandidateT]) -> CandidateT:
        """Return one of the least used candidates."""
        least, best = math.inf, []
        for candidate in candidates:
            load = candidate.in_use / candidate.weight
            if load < least:
                least, best = load, [candidate]
            elif load == least:
                best.append(candidate)
        return best[0] if len(best) == 1 else self._turns.choose(best)


class Random:
    """Chooses at random, by weight: it has no state, and many processes do not synchronise."""

    def __init__(self, source: random.Random | None = None) -> None:
        self._source = source or random.Random()  # noqa: S311  # for spreading, not for secrets

    def choose(self, candidates: collections.abc.Sequence[CandidateT]) -> CandidateT:
        """Return one of the candidates, with a probability proportional to its weight."""
        return self._source.choices(candidates, [candidate.weight for candidate in candidates])[0]


def with_affinity(key: str, candidates: collections.abc.Sequence[CandidateT]) -> CandidateT:
    """Return the same candidate for the same key, as long as it is there; shares of the keys follow the weights.

    Rendezvous hashing: when a candidate is removed, only its keys move; when it is added again, only they return.
    """
    of_key = _hash(key)

    def share(candidate: Candidate) -> int:
        return _mix(of_key ^ _hash(candidate.name))

    def weighted_share(candidate: Candidate) -> float:
        return -candidate.weight / math.log((share(candidate) + 1) / (_MASK + 2))

    return max(candidates, key=share if _weigh_the_same(candidates) else weighted_share)


def _weigh_the_same(candidates: collections.abc.Sequence[Candidate]) -> bool:
    weight = candidates[0].weight
    for candidate in candidates:  # noqa: SIM110  # a generator would take twice as long, at each choice
        if candidate.weight != weight:
            return False
    return True


_MASK: typing.Final = (1 << 64) - 1


@functools.lru_cache(maxsize=4096)
def _hash(text: str) -> int:
    """Return 64 bits that are the same in every process; Python's own hash of a text is not."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _mix(bits: int) -> int:
    """Mix the 64 bits of a key and a name; the finalizer of splitmix64."""
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & _MASK
    return bits ^ (bits >> 31)


STRATEGIES: typing.Final[dict[str, collections.abc.Callable[[], Balancer]]] = {
    "least-in-use": LeastInUse,
    "round-robin": RoundRobin,
    "random": Random,
}

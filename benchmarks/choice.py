"""What choosing a replica costs; nothing is sent, so it is time of the interpreter."""

import collections.abc
import dataclasses
import functools
import timeit
import typing

from modern_di import Container

from benchmarks.results import Spread
from modern_di_replicas import Dependencies, ReplicaEngine, ReplicationSettings
from modern_di_replicas.consistency.token import ConsistencyToken, identify
from modern_di_replicas.routing.snapshot import Observation


SIZES: typing.Final = (1, 3, 16, 64)
REPEATS: typing.Final = 15
CHOICES: typing.Final = 500
WRITTEN: typing.Final = ConsistencyToken(lsn=0x3022000, timeline=1, database=identify(1, 1), issued_at=0)
"""What the client has written, where that is asked for: all replicas have it."""


def measure() -> dict[str, dict[int, Spread]]:
    """Return the seconds for one choice, by strategy and number of replicas."""
    found = {
        strategy: {size: _seconds(_replicas(size, strategy).choose) for size in SIZES}
        for strategy in ("least-in-use", "round-robin", "random")
    }
    found["with affinity"] = {
        size: _seconds(functools.partial(_replicas(size, "random").choose, affinity="user-1")) for size in SIZES
    }
    found["with a token"] = {
        size: _seconds(functools.partial(_replicas(size, "least-in-use").choose, after=WRITTEN)) for size in SIZES
    }
    return found


def _replicas(size: int, strategy: str) -> ReplicaEngine:
    settings = ReplicationSettings(
        primary="postgresql+asyncpg://app@primary/shop",
        replicas=[f"postgresql+asyncpg://app@replica-{number}/shop" for number in range(size)],
        balancing=strategy,  # type: ignore[arg-type]  # one of the names, from a list
    )
    container = Container(groups=[Dependencies], context={ReplicationSettings: settings})
    container.open()
    replica = container.resolve(ReplicaEngine)
    seen = Observation(at=0, in_recovery=True, lsn=WRITTEN.lsn, written=WRITTEN.lsn, timeline=1, system=1, database=1)
    replica.topology.positions.follow(dataclasses.replace(seen, in_recovery=False))
    for member in replica.topology.servers:
        replica.topology.positions.saw(member.name, seen)
    return replica


def _seconds(choose: collections.abc.Callable[[], object]) -> Spread:
    return Spread.of(taken / CHOICES for taken in timeit.Timer(choose).repeat(REPEATS, CHOICES))

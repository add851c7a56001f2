"""What choosing a replica costs; nothing is sent, so it is time of the interpreter."""

import timeit
import typing

from modern_di import Container

from modern_di_replicas import Dependencies, ReplicaEngine, ReplicationSettings


SIZES: typing.Final = (1, 3, 16, 64)
REPEATS: typing.Final = 5
CHOICES: typing.Final = 1_000


def measure() -> dict[str, dict[int, float]]:
    """Return the seconds for one choice, by strategy and number of replicas."""
    found = {
        strategy: {size: _seconds(_fleet(size, strategy), None) for size in SIZES}
        for strategy in ("least-in-use", "round-robin", "random")
    }
    found["with affinity"] = {size: _seconds(_fleet(size, "random"), "user-1") for size in SIZES}
    return found


def _fleet(size: int, strategy: str) -> ReplicaEngine:
    settings = ReplicationSettings(
        primary="postgresql+asyncpg://app@primary/shop",
        replicas=[f"postgresql+asyncpg://app@replica-{number}/shop" for number in range(size)],
        balancing=strategy,  # type: ignore[arg-type]  # one of the names, from a list
    )
    container = Container(groups=[Dependencies], context={ReplicationSettings: settings})
    container.open()
    return container.resolve(ReplicaEngine)


def _seconds(engine: ReplicaEngine, affinity: str | None) -> float:
    timer = timeit.Timer(lambda: engine.choose(affinity=affinity))
    return min(timer.repeat(REPEATS, CHOICES)) / CHOICES

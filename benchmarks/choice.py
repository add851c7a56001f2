"""What choosing a replica costs; nothing is sent, so it is time of the interpreter.

Run it: `.venv/bin/python benchmarks/choice.py`.

The figures to stay below are 5 µs with 3 replicas and 50 µs with 64, on an idle machine of ordinary speed.
"""

import timeit

from rich.console import Console
from rich.table import Table

from modern_di_replicas import ReplicaEngine, ReplicationSettings
from modern_di_replicas.cluster.engines import create_primary_engine, create_replica_engine


REPEATS = 7
CHOICES = 20_000


def fleet_of(size: int, balancing: str) -> ReplicaEngine:
    settings = ReplicationSettings(
        primary="postgresql+asyncpg://app@primary/shop",
        replicas=[f"postgresql+asyncpg://app@replica-{number}/shop" for number in range(size)],
        balancing=balancing,  # type: ignore[arg-type]  # one of the names, from a list
    )
    return create_replica_engine(settings, create_primary_engine(settings))


def microseconds(engine: ReplicaEngine, affinity: str | None) -> float:
    number = max(CHOICES // len(engine.fleet.members if engine.fleet else ()), 1)
    timer = timeit.Timer(lambda: engine.choose(affinity=affinity))
    return min(timer.repeat(REPEATS, number)) / number * 1e6


def main() -> None:
    table = Table("strategy", title="One choice, in µs")
    sizes = (1, 3, 16, 64)
    for size in sizes:
        table.add_column(f"{size} replicas", justify="right")
    for balancing in ("least-in-use", "round-robin", "random"):
        table.add_row(balancing, *(f"{microseconds(fleet_of(size, balancing), None):.1f}" for size in sizes))
    table.add_row("with affinity", *(f"{microseconds(fleet_of(size, 'random'), 'user-1'):.1f}" for size in sizes))
    Console().print(table)


if __name__ == "__main__":
    main()

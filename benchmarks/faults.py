"""The same script for every contender: visitors read at a steady rate while replicas freeze, crash and lag."""

import asyncio
import collections.abc
import dataclasses
import json
import random
import time
import typing

from benchmarks.http_client import Visitor
from benchmarks.results import FaultOutcome, FreshnessOutcome
from modern_di_replicas.testing import LocalCluster


VISITORS: typing.Final = 5
PERIOD: typing.Final = 0.1
"""Seconds from one visit of a visitor to its next, unless the visit takes longer."""
GRACE: typing.Final = 2.0
"""Seconds after the end of a script in which answers still count; what is open then has failed."""
OK: typing.Final = 200
LAG: typing.Final = 0.1
"""Seconds that all replicas lag in the section on consistency."""
WRITES: typing.Final = 0.1
"""Share of the visits that write, there."""
THINKING: typing.Final = 0.1
"""Seconds between two visits in the section on consistency, on average."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Fault:
    name: str
    title: str
    writes: bool
    strike: collections.abc.Callable[[LocalCluster], None]
    heal: collections.abc.Callable[[LocalCluster], None]


def _pause(cluster: LocalCluster) -> None:
    for replica in cluster.replicas:
        replica.pause_replay()


def _resume(cluster: LocalCluster) -> None:
    for replica in cluster.replicas:
        replica.resume_replay()


FAULTS: typing.Final = (
    Fault(
        name="freeze",
        title="a replica freezes",
        writes=False,
        strike=lambda cluster: cluster.replicas[0].freeze(),
        heal=lambda cluster: cluster.replicas[0].thaw(),
    ),
    Fault(
        name="crash",
        title="a replica crashes",
        writes=False,
        strike=lambda cluster: cluster.replicas[0].stop("immediate"),
        heal=lambda cluster: cluster.replicas[0].start(),
    ),
    Fault(name="lag", title="the replicas lag", writes=True, strike=_pause, heal=_resume),
)


async def suffer(
    fault: Fault, cluster: LocalCluster, ports: dict[str, int], timing: tuple[float, float, float]
) -> dict[str, FaultOutcome]:
    """Let the visitors of all contenders meet one fault, at the same moment.

    Args:
        fault: what happens to the replicas.
        cluster: where.
        ports: of the applications, by the names of their contenders.
        timing: seconds before the fault, while it lasts, and after it is healed.

    """
    outcomes = {name: FaultOutcome() for name in ports}
    until = time.monotonic() + sum(timing)
    visits = [
        asyncio.create_task(
            _visit(Visitor(port), outcomes[name], key=1 + index * VISITORS + number, until=until, fault=fault)
        )
        for index, (name, port) in enumerate(ports.items())
        for number in range(VISITORS)
    ]
    before, during, _ = timing
    await asyncio.sleep(before)
    await asyncio.to_thread(fault.strike, cluster)
    await asyncio.sleep(during)
    await asyncio.to_thread(fault.heal, cluster)
    await asyncio.gather(*visits)
    await asyncio.to_thread(cluster.catch_up)
    return outcomes


async def _visit(visitor: Visitor, outcome: FaultOutcome, *, key: int, until: float, fault: Fault) -> None:
    await asyncio.sleep(random.uniform(0, PERIOD))  # noqa: S311  # for spreading
    written = 0
    while (started := time.monotonic()) < until:
        if fault.writes:
            answer = await _ask(visitor, "POST", f"/write/{key}", until)
            outcome.failed_writes += answer is None
            written = answer["copies"] if answer else written
        reading = time.monotonic()
        answer = await _ask(visitor, "GET", f"/witness/{key}", until)
        outcome.reads += 1
        outcome.failed += answer is None
        outcome.stale += answer is not None and answer["copies"] < written
        outcome.worst = max(outcome.worst, time.monotonic() - reading)
        await asyncio.sleep(max(0.0, PERIOD - (time.monotonic() - started)))
    visitor.close()


async def _ask(visitor: Visitor, method: str, path: str, until: float) -> dict[str, typing.Any] | None:
    """Return the answer of the application, None when it failed."""
    try:
        async with asyncio.timeout(until + GRACE - time.monotonic()):
            status, body = await visitor.request(method, path)
    except (OSError, TimeoutError):
        return None
    return json.loads(body) if status == OK else None


async def is_well(port: int) -> bool:
    """Say whether an application answers again, all of its connections to a replica that was broken included."""
    visitors = [Visitor(port) for _ in range(VISITORS)]
    until = time.monotonic()
    answers = await asyncio.gather(*(_ask(visitor, "GET", "/witness/1", until) for visitor in visitors))
    for visitor in visitors:
        visitor.close()
    return None not in answers


async def compare_freshness(
    cluster: LocalCluster, ports: dict[str, int], seconds: float
) -> dict[str, FreshnessOutcome]:
    """Let visitors read, and write now and then, on replicas that lag by a constant time."""
    await asyncio.to_thread(_set_lag, cluster, f"{LAG * 1000:g}ms")
    outcomes = {name: FreshnessOutcome() for name in ports}
    until = time.monotonic() + seconds
    await asyncio.gather(
        *(
            _read_and_write(
                Visitor(port),
                outcomes[name],
                key=501 + index * VISITORS + number,
                dice=random.Random(number),  # noqa: S311  # the same habits for all contenders
                until=until,
            )
            for index, (name, port) in enumerate(ports.items())
            for number in range(VISITORS)
        )
    )
    await asyncio.to_thread(_set_lag, cluster, "0")
    return outcomes


def _set_lag(cluster: LocalCluster, lag: str) -> None:
    for replica in cluster.replicas:
        replica.execute(f"ALTER SYSTEM SET recovery_min_apply_delay = '{lag}';\nSELECT pg_reload_conf()")


async def _read_and_write(
    visitor: Visitor, outcome: FreshnessOutcome, *, key: int, dice: random.Random, until: float
) -> None:
    written = 0
    while time.monotonic() < until:
        await asyncio.sleep(dice.uniform(0, 2 * THINKING))
        if dice.random() < WRITES:
            answer = await _ask(visitor, "POST", f"/write/{key}", until)
            outcome.failed += answer is None
            written = answer["copies"] if answer else written
            continue
        reading = time.monotonic()
        answer = await _ask(visitor, "GET", f"/witness/{key}", until)
        outcome.times.append(time.monotonic() - reading)
        outcome.reads += 1
        outcome.failed += answer is None
        if answer is not None:
            outcome.on_replica += answer["replica"]
            outcome.stale += answer["copies"] < written
    visitor.close()

"""The same script for every contender: clients send requests at a steady rate while replicas freeze, crash and lag."""

import asyncio
import collections.abc
import dataclasses
import json
import random
import time
import typing

from benchmarks.http_client import Client
from benchmarks.results import Outcome
from modern_di_replicas.testing import LocalCluster


CLIENTS: typing.Final = 5
PERIOD: typing.Final = 0.1
"""Seconds from one read of a client to its next, unless the read takes longer."""
GRACE: typing.Final = 2.0
"""Seconds after the end of a script in which answers still count; after that, the request has failed."""
OK: typing.Final = 200
LAG: typing.Final = 0.1
"""Seconds of the constant lag."""

Answer = dict[str, typing.Any]


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Fault:
    name: str
    title: str
    inject: collections.abc.Callable[[LocalCluster], None]
    recover: collections.abc.Callable[[LocalCluster], None]
    writes: float = 0.0
    """Share of the reads that a write of the same client precedes."""


def _pause(cluster: LocalCluster) -> None:
    for replica in cluster.replicas:
        replica.pause_replay()


def _resume(cluster: LocalCluster) -> None:
    for replica in cluster.replicas:
        replica.resume_replay()


def _lag(cluster: LocalCluster, seconds: float = LAG) -> None:
    for replica in cluster.replicas:
        delay = f"ALTER SYSTEM SET recovery_min_apply_delay = '{1000 * seconds:g}ms'"
        replica.execute(f"{delay};\nSELECT pg_reload_conf()")


FREEZE: typing.Final = Fault(
    name="freeze",
    title="a replica freezes",
    inject=lambda cluster: cluster.replicas[0].freeze(),
    recover=lambda cluster: cluster.replicas[0].thaw(),
)
CRASH: typing.Final = Fault(
    name="crash",
    title="a replica crashes",
    inject=lambda cluster: cluster.replicas[0].stop("immediate"),
    recover=lambda cluster: cluster.replicas[0].start(),
)
PAUSE: typing.Final = Fault(name="pause", title="replicas stop replaying", inject=_pause, recover=_resume, writes=1.0)
CONSTANT_LAG: typing.Final = Fault(
    name="lag",
    title=f"replicas lag by {1000 * LAG:g} ms",
    inject=_lag,
    recover=lambda cluster: _lag(cluster, 0),
    writes=0.1,
)
FAULTS: typing.Final = (FREEZE, CRASH, PAUSE, CONSTANT_LAG)


async def run_fault(
    fault: Fault, cluster: LocalCluster, ports: dict[str, int], timing: tuple[float, float, float]
) -> dict[str, Outcome]:
    """Inject one fault while the clients of all contenders send requests.

    Args:
        fault: the fault of the replicas.
        cluster: the servers.
        ports: those of the applications, by the names of their contenders.
        timing: seconds before the fault, during it, and after the recovery.

    """
    outcomes = {name: Outcome() for name in ports}
    until = time.monotonic() + sum(timing)
    clients = [
        asyncio.create_task(
            _read(Client(port), outcomes[name], key=1 + index * CLIENTS + number, until=until, writes=fault.writes)
        )
        for index, (name, port) in enumerate(ports.items())
        for number in range(CLIENTS)
    ]
    before, during, _ = timing
    await asyncio.sleep(before)
    await asyncio.to_thread(fault.inject, cluster)
    await asyncio.sleep(during)
    await asyncio.to_thread(fault.recover, cluster)
    await asyncio.gather(*clients)
    await asyncio.to_thread(cluster.catch_up)
    return outcomes


async def _read(client: Client, outcome: Outcome, *, key: int, until: float, writes: float) -> None:
    dice = random.Random(key % CLIENTS)  # noqa: S311  # the same requests for all contenders
    await asyncio.sleep(dice.uniform(0, PERIOD))
    written = 0
    while (started := time.monotonic()) < until:
        if dice.random() < writes:
            answer = await _ask(client, "POST", f"/write/{key}", until)
            outcome.failed_writes += answer is None
            written = answer["copies"] if answer else written
        reading = time.monotonic()
        answer = await _ask(client, "GET", f"/witness/{key}", until)
        outcome.reads += 1
        outcome.slowest = round(max(outcome.slowest, time.monotonic() - reading), 3)
        if answer is None:
            outcome.failed += 1
        else:
            outcome.stale += answer["copies"] < written
            outcome.on_replica += answer["replica"]
        await asyncio.sleep(max(0.0, PERIOD - (time.monotonic() - started)))
    client.close()


async def _ask(client: Client, method: str, path: str, until: float) -> Answer | None:
    """Return the application's response; None for a failed request."""
    try:
        async with asyncio.timeout(until + GRACE - time.monotonic()):
            status, body = await client.request(method, path)
    except (OSError, TimeoutError):
        return None
    return json.loads(body) if status == OK else None


async def is_healthy(port: int) -> bool:
    """Return whether an application responds again, on each of its connections to the server that had failed."""
    clients = [Client(port) for _ in range(CLIENTS)]
    until = time.monotonic()
    answers = await asyncio.gather(*(_ask(client, "GET", "/witness/1", until) for client in clients))
    for client in clients:
        client.close()
    return None not in answers

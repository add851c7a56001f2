"""The run itself: every contender in turn, round by round."""

import asyncio
import collections.abc
import dataclasses
import itertools
import random
import time
import typing

from benchmarks import alternating, choice, faults, machine, over_http, processors, schema
from benchmarks.closed_loop import Count
from benchmarks.contenders.catalogue import (
    AUTOCOMMIT,
    CONTENDERS,
    FLOORS,
    FRESHNESS,
    NO_TOKENS,
    OURS,
    OURS_20,
    Entry,
)
from benchmarks.plan import (
    ELEVEN_STATEMENTS,
    HTTP_SURFACES,
    KEYED_READ,
    ONE_STATEMENT,
    TOKEN_FIRST_READ,
    TOKEN_READ,
    TOKEN_WRITE,
    Plan,
    Turns,
    participants,
)
from benchmarks.results import Cell, Results, Sample, sample_of
from benchmarks.servers import Servers
from benchmarks.verdicts import OWN_COST
from benchmarks.work.operations import BY_NAME, Operation
from benchmarks.workers import Crew, Worker
from modern_di_replicas.testing import LocalCluster


Progress = collections.abc.Callable[[str], None]
CONNECTIONS: typing.Final = 400
ALONE: typing.Final[dict[str, tuple[Entry, ...]]] = {"session": FLOORS, "fastapi": (NO_TOKENS,)}
"""Who takes part in one surface only, for figures of their own."""
COST_PATIENCE: typing.Final = 180.0


async def measure(plan: Plan, log: typing.IO[bytes], progress: Progress) -> Results:
    """Measure everything in a plan, on a cluster of its own.

    Args:
        plan: what, and how often.
        log: takes what the contenders print.
        progress: called with a sentence before each part.

    """
    results = Results(load=machine.load())
    started = time.monotonic()
    progress("starting the cluster")
    with (
        processors.divided() as apart,
        LocalCluster(settings={"max_connections": str(CONNECTIONS)}) as cluster,
    ):
        results.is_divided = bool(apart)
        servers = Servers(primary=cluster.primary.url, replicas=tuple(replica.url for replica in cluster.replicas))
        await schema.create(servers.primary)
        await asyncio.to_thread(cluster.catch_up)
        run = _Run(plan, cluster, results, progress)
        async with Crew(servers, log, apart) as crew:
            progress("starting the contenders")
            await crew.start([*CONTENDERS, *ALONE["session"], *ALONE["fastapi"]])
            await run.side_by_side(crew)
        if plan.freshness:
            async with Crew(servers, log, apart) as crew:
                progress("consistency")
                await crew.start(FRESHNESS)
                await run.freshness(crew)
    progress("choosing")
    results.choices = choice.measure()
    results.seconds = time.monotonic() - started
    return results


class _Run:
    def __init__(self, plan: Plan, cluster: LocalCluster, results: Results, progress: Progress) -> None:
        self._plan = plan
        self._cluster = cluster
        self._results = results
        self._progress = progress

    async def side_by_side(self, crew: Crew) -> None:
        workers = crew.workers
        version = await asyncio.to_thread(self._cluster.primary.execute, "SHOW server_version")
        versions = {
            worker.entry.environment: await worker.ask("versions")
            for worker in (workers[OURS.name], workers[OURS_20.name])
        }
        self._results.machine = machine.describe(version, versions)
        await self._same_replica(workers)
        for surface in self._plan.surfaces():
            await self._surface(surface, workers)
        for entry in itertools.chain.from_iterable(ALONE.values()):
            workers.pop(entry.name).end()
        if self._plan.surfaces()[-1] != "fastapi":
            await asyncio.gather(*(worker.open("fastapi") for worker in workers.values()))
        for fault in faults.FAULTS:
            self._progress(fault.title)
            ports = {name: worker.port for name, worker in workers.items()}
            self._results.faults[fault.name] = await faults.suffer(fault, self._cluster, ports, self._plan.fault)
            for worker in list(workers.values()):
                if not await faults.is_well(worker.port):
                    await crew.restart(worker, "fastapi")

    async def _same_replica(self, workers: dict[str, Worker]) -> None:
        turns = self._plan.same_replica
        await asyncio.gather(*(workers[e.name].open(turns.cell.surface) for e in participants(turns.cell)))
        await self._take_turns(turns, workers)

    async def _surface(self, surface: str, workers: dict[str, Worker]) -> None:
        self._progress(f"opening {surface}")
        await asyncio.gather(*(workers[e.name].open(surface) for e in (*CONTENDERS, *ALONE.get(surface, ()))))
        if surface == "session":
            self._progress("round trips and memory")
            await self._count(workers)
            self._progress("the own cost")
            await self._own_cost(workers)
        if surface == "fastapi":
            self._progress("what tokens cost")
            await self._token_cost(workers)
        for turns in self._plan.turns:
            if turns.cell.surface == surface:
                await self._take_turns(turns, workers)

    async def _count(self, workers: dict[str, Worker]) -> None:
        for entry in CONTENDERS:
            for operation in self._plan.counted:
                await self._count_round_trips(workers[entry.name], operation)
            self._results.memory[entry.name] = (await workers[entry.name].ask("memory"))["bytes"]
        for entry in FLOORS:
            await self._count_round_trips(workers[entry.name], BY_NAME[KEYED_READ.operation])

    async def _count_round_trips(self, worker: Worker, operation: Operation) -> None:
        answer = await worker.ask("round_trips", operation=operation.name)
        self._results.round_trips[operation.name, worker.entry.name] = answer["round_trips"]

    async def _own_cost(self, workers: dict[str, Worker]) -> None:
        names = [entry.name for entry in (OURS, AUTOCOMMIT)]
        found = await workers[OURS.name].ask("alternate", patience=COST_PATIENCE, names=names, rounds=self._plan.cost)
        for cell, name in itertools.product((ONE_STATEMENT, ELEVEN_STATEMENTS), names):
            done = alternating.TURNS[cell.operation]
            self._results.samples[dataclasses.replace(cell, surface=OWN_COST), name] = [
                Sample(done=done, failed=0, wall=wall, cpu=cpu) for wall, cpu in found[cell.operation][name]
            ]

    async def _token_cost(self, workers: dict[str, Worker]) -> None:
        for number in range(self._plan.tokens):
            for cell in (TOKEN_READ, TOKEN_FIRST_READ, TOKEN_WRITE):
                samples = await over_http.alternate([workers[OURS.name], workers[NO_TOKENS.name]], cell, number)
                for name, sample in samples.items():
                    self._results.samples[cell, name].append(sample)

    async def _take_turns(self, turns: Turns, workers: dict[str, Worker]) -> None:
        cell = turns.cell
        self._progress(f"{cell.surface}: {BY_NAME[cell.operation].title}, {cell.clients} clients")
        entries = list(participants(cell))
        for number in range(turns.rounds):
            # Nobody always comes after the same one.
            random.Random(number).shuffle(entries)  # noqa: S311
            for entry in entries:
                run = over_http.run if cell.surface in HTTP_SURFACES else _run_sessions
                sample = await run(workers[entry.name], cell, turns.seconds)
                self._results.samples[cell, entry.name].append(sample)

    async def freshness(self, crew: Crew) -> None:
        await asyncio.gather(*(worker.open("fastapi") for worker in crew.workers.values()))
        ports = {name: worker.port for name, worker in crew.workers.items()}
        self._results.freshness = await faults.compare_freshness(self._cluster, ports, self._plan.freshness)


async def _run_sessions(worker: Worker, cell: Cell, seconds: float) -> Sample:
    answer = await worker.ask("run", operation=cell.operation, clients=cell.clients, seconds=seconds)
    cpu = answer.pop("cpu")
    return sample_of(Count(**answer), cpu)

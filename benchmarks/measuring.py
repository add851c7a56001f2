"""A run: the contenders take turns, round by round."""

import asyncio
import collections.abc
import random
import time
import typing

import psutil

from benchmarks import faults, machine, over_http, schema
from benchmarks.contenders.catalogue import BY_NAME, CONTENDERS, OURS, OURS_20, PINNED
from benchmarks.plan import HTTP_SURFACES, SURFACES, Plan, Turns, participants
from benchmarks.results import Cell, Results, Sample, Samples
from benchmarks.servers import Servers
from benchmarks.work.operations import BY_NAME as OPERATIONS
from benchmarks.workers import Worker, Workers
from modern_di_replicas.testing import LocalCluster
from modern_di_replicas.testing.processes import find_postmaster


Progress = collections.abc.Callable[[str], None]
CONNECTIONS: typing.Final = 400


async def measure(plan: Plan, log: typing.IO[bytes], progress: Progress) -> tuple[Results, machine.OtherPrograms]:
    """Run a plan on a separate cluster; return the results and the load by other programs.

    Args:
        plan: the measurements and their number.
        log: receives the output of the contenders.
        progress: called with a description before each part.

    """
    started = time.monotonic()
    progress("starting the cluster")
    with machine.divided() as apart, LocalCluster(settings={"max_connections": str(CONNECTIONS)}) as cluster:
        servers = Servers(primary=cluster.primary.url, replicas=tuple(replica.url for replica in cluster.replicas))
        await schema.create(servers.primary)
        await asyncio.to_thread(cluster.catch_up)
        async with Workers(servers, log, apart) as workers:
            run = _Run(plan, cluster, workers, progress)
            run.begin("starting the contenders")
            await workers.start(BY_NAME.values())
            await run.compare()
            for fault in faults.FAULTS:
                await run.fault(fault)
            run.others.look()
    run.results.cells = run.samples.figures()
    run.results.is_divided = bool(apart)
    run.results.seconds = round(time.monotonic() - started)
    return run.results, run.others


class _Run:
    def __init__(self, plan: Plan, cluster: LocalCluster, workers: Workers, progress: Progress) -> None:
        self.results = Results()
        self.samples = Samples()
        self._plan = plan
        self._cluster = cluster
        self._workers = workers
        self._progress = progress
        self.others = machine.OtherPrograms(self._processes)

    def begin(self, part: str) -> None:
        self.others.look()
        self._progress(part)

    def _processes(self) -> list[psutil.Process]:
        servers = (self._cluster.primary, *self._cluster.replicas)
        postmasters = [find_postmaster(server.data_directory) for server in servers]
        return [psutil.Process(), *filter(None, postmasters)]

    async def compare(self) -> None:
        version = await asyncio.to_thread(self._cluster.primary.execute, "SHOW server_version")
        ours = [self._workers[entry.name] for entry in (OURS, OURS_20)]
        versions = {worker.entry.environment: await worker.ask("versions") for worker in ours}
        self.results.machine = machine.describe(version, versions)
        self.begin("round trips")
        for operation in self._plan.counted:
            self.results.round_trips[operation.name] = {
                entry.name: (await self._workers[entry.name].ask("round_trips", operation=operation.name))["count"]
                for entry in CONTENDERS
            }
        opened = ""
        for turns in self._plan.turns:
            if turns.cell.surface != opened:
                opened = turns.cell.surface
                self.begin(f"opening {opened}")
                await self._workers.open(opened, [entry.name for entry in participants(turns.cell)])
            await self._take_turns(turns)

    async def _take_turns(self, turns: Turns) -> None:
        cell = turns.cell
        surface = SURFACES.get(cell.surface, cell.surface)
        self.begin(f"{surface}: {OPERATIONS[cell.operation].title}, {cell.clients} client(s)")
        entries = list(participants(cell))
        for number in range(turns.rounds):
            # A different order in each round, so that no contender always follows the same one.
            random.Random(number).shuffle(entries)  # noqa: S311
            for entry in entries:
                run = over_http.run if cell.surface in HTTP_SURFACES else _run_sessions
                self.samples[cell, entry.name].append(await run(self._workers[entry.name], cell, turns.seconds))

    async def fault(self, fault: faults.Fault) -> None:
        self.begin(fault.title)
        workers = {entry.name: self._workers[entry.name] for entry in (*CONTENDERS, PINNED)}
        await self._workers.open("fastapi", workers)
        ports = {name: worker.port for name, worker in workers.items()}
        self.results.faults[fault.name] = await faults.run_fault(fault, self._cluster, ports, self._plan.fault)
        for worker in workers.values():
            if not await faults.is_healthy(worker.port):
                await self._workers.restart(worker)


async def _run_sessions(worker: Worker, cell: Cell, seconds: float) -> Sample:
    return Sample(**await worker.ask("run", operation=cell.operation, clients=cell.clients, seconds=seconds))

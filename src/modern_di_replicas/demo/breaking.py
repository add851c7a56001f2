"""Break and repair the servers during the demo's requests, one experiment at a time."""

import asyncio
import collections
import collections.abc
import dataclasses
import typing

from modern_di_replicas.demo.traffic import Answer, Traffic
from modern_di_replicas.testing import LocalCluster


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Experiment:
    """One experiment with the servers, and the answers to the requests during it."""

    title: str
    reads: collections.abc.Sequence[Answer]
    went_well: bool
    """Whether the application detected the fault, and the recovery, in time."""

    @property
    def failed(self) -> int:
        """How many reads failed."""
        return sum(answer.failed for answer in self.reads)

    @property
    def slowest(self) -> float:
        """The seconds of the slowest read."""
        return max((answer.seconds for answer in self.reads), default=0.0)

    @property
    def by_port(self) -> collections.Counter[int | None]:
        """How many reads each server answered."""
        return collections.Counter(answer.port for answer in self.reads)

    @property
    def reasons(self) -> collections.Counter[str]:
        """The number of answers for each reason, except the ordinary one."""
        return collections.Counter(answer.reason for answer in self.reads if answer.reason != "GET")


Step = collections.abc.Callable[[], collections.abc.Awaitable[object]]


class ExperimentView(typing.Protocol):
    """Shows the experiments."""

    def show_experiment(self, title: str) -> None: ...
    def show_outcome(self, experiment: Experiment) -> None: ...


async def break_servers(cluster: LocalCluster, traffic: Traffic, view: ExperimentView) -> list[Experiment]:
    """Freeze, delay, crash and promote servers, one after the other; return the outcome of the reads."""
    primary, first, second = cluster.servers
    experiments = []

    def serves(port: int) -> collections.abc.Callable[[], bool]:
        return lambda: port in {answer.port for answer in traffic.recent}

    def does_not_serve(port: int) -> collections.abc.Callable[[], bool]:
        return lambda: port not in {answer.port for answer in traffic.recent}

    async def run(title: str, *steps: Step) -> None:
        traffic.reads.clear()
        view.show_experiment(title)
        went_well = True
        for step in steps:
            went_well &= await step() is not False
        experiment = Experiment(title=title, reads=list(traffic.reads), went_well=went_well)
        experiments.append(experiment)
        view.show_outcome(experiment)

    def do(work: collections.abc.Callable[..., None], *args: object) -> Step:
        return lambda: asyncio.to_thread(work, *args)

    def wait(condition: collections.abc.Callable[[], bool]) -> Step:
        return lambda: traffic.until(condition)

    await run("nothing is broken", wait(lambda: serves(first.port)() and serves(second.port)()))
    for title, victim, strike, heal in (
        (f"{first.name} freezes", first, do(first.freeze), do(first.thaw)),
        (f"{second.name} lags behind", second, do(second.pause_replay), do(second.resume_replay)),
        (f"{first.name} crashes", first, do(first.stop, "immediate"), do(first.start)),
    ):
        await run(title, strike, wait(does_not_serve(victim.port)), heal, wait(serves(victim.port)))
    await run(
        f"{primary.name} stops, {first.name} is promoted",
        do(primary.stop),
        do(first.promote),
        wait(lambda: traffic.written_on == first.port),
        do(second.follow, first),
        wait(serves(second.port)),
    )
    return experiments

"""Faults that the demo injects; the servers are stand-ins that record them."""

import collections.abc
import types
import typing

from modern_di_replicas.demo.breaking import Experiment, break_servers
from modern_di_replicas.demo.traffic import Answer, Traffic
from modern_di_replicas.testing import LocalCluster


def answer(port: int | None, reason: str = "GET", seconds: float = 0.01) -> Answer:
    return Answer(server="", port=port, reason=reason, seconds=seconds)


def test_an_experiment_summarizes_its_reads() -> None:
    """Failed reads, the slowest read, and every reason except the usual one."""
    reads = [answer(1), answer(2), answer(1, "no replica", 0.3), answer(None, "ReadError")]
    experiment = Experiment(title="a crash", reads=reads, went_well=True)
    assert (experiment.failed, experiment.slowest) == (1, 0.3)
    assert experiment.by_port == {1: 2, 2: 1, None: 1}
    assert experiment.reasons == {"no replica": 1, "ReadError": 1}
    assert Experiment(title="nothing", reads=[], went_well=True).slowest == 0.0


class Server:
    """Records what is done to any of the servers, in order."""

    def __init__(self, port: int, done: list[str]) -> None:
        self.port, self.name, self._done = port, f"server-{port}", done

    def __getattr__(self, action: str) -> collections.abc.Callable[..., None]:
        return lambda *_: self._done.append(f"{action} {self.port}")


class Requests:
    """Answers as the application should: never from a broken server, and from every healthy one."""

    def __init__(self, done: list[str], *, notices: bool) -> None:
        self._done = done
        self._notices = notices
        self.reads: list[Answer] = []
        self.waits = 0

    async def until(self, condition: collections.abc.Callable[[], bool]) -> bool:
        self.reads.append(answer(2))
        self.waits += 1
        return self._notices and condition()

    @property
    def recent(self) -> list[Answer]:
        last = self._done[-1].split() if self._done else ["", ""]
        is_broken = last[0] in ("freeze", "pause_replay", "stop")
        return [answer(port) for port in (2, 3) if not (is_broken and str(port) == last[1])]

    @property
    def written_on(self) -> int:
        return 2 if "promote 2" in self._done else 1


class ExperimentView:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def show_experiment(self, title: str) -> None:
        self.seen.append(title)

    def show_outcome(self, experiment: Experiment) -> None:
        self.seen.append(f"end of {experiment.title}")


async def run_all(*, notices: bool) -> tuple[list[str], list[Experiment], ExperimentView]:
    done: list[str] = []
    cluster = types.SimpleNamespace(servers=[Server(port, done) for port in (1, 2, 3)])
    traffic, view = Requests(done, notices=notices), ExperimentView()
    experiments = await break_servers(typing.cast(LocalCluster, cluster), typing.cast(Traffic, traffic), view)
    return done, experiments, view


async def test_each_fault_is_undone_before_the_next() -> None:
    """The last fault cannot be undone: another server is the primary from then on."""
    done, experiments, view = await run_all(notices=True)
    assert done == [
        *("freeze 2", "thaw 2", "pause_replay 3", "resume_replay 3", "stop 2", "start 2"),
        *("stop 1", "promote 2", "follow 3"),
    ]
    assert all(experiment.went_well for experiment in experiments)
    assert view.seen == [words for one in experiments for words in (one.title, f"end of {one.title}")]


async def test_an_experiment_without_an_effect_has_failed() -> None:
    """It is undone all the same, and the next one follows."""
    done, experiments, _ = await run_all(notices=False)
    assert len(done) == 9
    assert not any(experiment.went_well for experiment in experiments)

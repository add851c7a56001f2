"""What a run has measured, and what follows from it."""

import collections
import collections.abc
import dataclasses
import math
import statistics
import typing

from benchmarks.closed_loop import Count


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Sample:
    """One run of one contender in one cell."""

    done: int
    failed: int
    wall: float
    """Seconds the run took."""
    cpu: float
    """Seconds of processor time the contender's process took."""

    @property
    def wall_each(self) -> float:
        """Seconds for one operation; with several clients, the reciprocal of the throughput."""
        return self.wall / self.done if self.done else math.inf

    @property
    def cpu_each(self) -> float:
        return self.cpu / self.done if self.done else math.inf


def sample_of(count: Count, cpu: float) -> Sample:
    """Return what a run has measured, from its count and the processor time of all of it."""
    # Its share goes to what was counted.
    share = count.done / max(count.everything, 1)
    return Sample(done=count.done, failed=count.failed, wall=count.wall, cpu=cpu * share)


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True, order=True)
class Cell:
    """What is done, through what, by how many clients at once."""

    surface: str
    operation: str
    clients: int


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Spread:
    """A median, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: collections.abc.Iterable[float]) -> typing.Self:
        values = sorted(values)
        if len(values) == 1:
            return cls(median=values[0], low=values[0], high=values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median=median, low=low, high=high)


@dataclasses.dataclass(kw_only=True, slots=True)
class FaultOutcome:
    """What the visitors of one contender met while a fault lasted."""

    reads: int = 0
    failed: int = 0
    stale: int = 0
    """Reads that did not show what the same visitor had written before."""
    failed_writes: int = 0
    worst: float = 0.0
    """Seconds of the slowest read, failed ones included."""


@dataclasses.dataclass(kw_only=True, slots=True)
class FreshnessOutcome:
    """What the visitors of one contender met on replicas that lag by a constant time."""

    reads: int = 0
    on_replica: int = 0
    stale: int = 0
    failed: int = 0
    times: list[float] = dataclasses.field(default_factory=list)
    """Seconds of each read."""

    @property
    def median_and_95th(self) -> tuple[float, float]:
        times = sorted(self.times) or [math.nan]
        return times[len(times) // 2], times[len(times) * 95 // 100]


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class OwnCost:
    """What the library adds to a plain session in autocommit, in seconds."""

    request: Spread
    statement: Spread
    share: float
    """Share of the library's time for a request with one statement."""


@dataclasses.dataclass(kw_only=True, slots=True)
class Results:
    machine: dict[str, str] = dataclasses.field(default_factory=dict)
    samples: dict[tuple[Cell, str], list[Sample]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )
    """By cell and name of the contender, a sample for each round."""
    round_trips: dict[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    """By operation and name of the contender."""
    memory: dict[str, float] = dataclasses.field(default_factory=dict)
    choices: dict[str, dict[int, Spread]] = dataclasses.field(default_factory=dict)
    """Seconds for one choice, by strategy and number of replicas."""
    faults: dict[str, dict[str, FaultOutcome]] = dataclasses.field(default_factory=dict)
    freshness: dict[str, FreshnessOutcome] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    is_divided: bool = False
    """Whether the contenders had a processor of their own."""
    load: float = 0.0
    """How many processes wanted a core before the run, for each core: others than this run's."""

    def cells(self) -> list[Cell]:
        return sorted({cell for cell, _ in self.samples})

    def time(self, cell: Cell, name: str) -> Spread:
        return Spread.of(sample.wall_each for sample in self.samples[cell, name])

    def cpu(self, cell: Cell, name: str) -> Spread:
        return Spread.of(sample.cpu_each for sample in self.samples[cell, name])

    def ratio(self, cell: Cell, ours: str, theirs: str) -> Spread:
        """Return our time as a multiple of theirs: of both runs of each round, so that both had the same weather."""
        pairs = zip(self.samples[cell, ours], self.samples[cell, theirs], strict=True)
        return Spread.of(mine.wall_each / other.wall_each for mine, other in pairs)

    def cpu_ratio(self, cell: Cell, ours: str, theirs: str) -> float:
        """Return our processor time as a multiple of theirs."""
        return self.cpu(cell, ours).median / self.cpu(cell, theirs).median

    def rounds(self, cells: collections.abc.Iterable[Cell], name: str) -> tuple[int, int]:
        """Return how often the cells were measured: the fewest rounds, and the most."""
        counts = [len(self.samples[cell, name]) for cell in cells]
        return min(counts), max(counts)

    def own_cost(self, one: Cell, eleven: Cell, reference: str, measure: typing.Literal["wall", "cpu"]) -> OwnCost:
        """Return what is left of the library's time when that of a plain session is taken away.

        Args:
            one: a request with one statement.
            eleven: a request with eleven.
            reference: the name of the plain session.
            measure: the clock.

        """

        def each(cell: Cell, name: str) -> list[float]:
            return [getattr(sample, f"{measure}_each") for sample in self.samples[cell, name]]

        rounds = list(
            zip(each(one, "ours"), each(one, reference), each(eleven, "ours"), each(eleven, reference), strict=True)
        )
        statements = [((ours_11 - ours_1) - (plain_11 - plain_1)) / 10 for ours_1, plain_1, ours_11, plain_11 in rounds]
        requests = [
            ours_1 - plain_1 - statement for (ours_1, plain_1, *_), statement in zip(rounds, statements, strict=True)
        ]
        request, statement = Spread.of(requests), Spread.of(statements)
        total = statistics.median(each(one, "ours"))
        return OwnCost(request=request, statement=statement, share=(request.median + statement.median) / total)

"""The results of a run: samples while it runs, and the figures that are kept as JSON."""

import collections
import collections.abc
import dataclasses
import json
import pathlib
import statistics
import typing

from benchmarks.contenders.catalogue import BY_NAME, OURS


class Sample(typing.NamedTuple):
    """One round of one contender in one cell."""

    done: int
    failed: int
    wall: float
    """Seconds the round took."""
    cpu: float
    """Seconds of processor time of the contender's process."""


class Cell(typing.NamedTuple):
    """The operation, the interface and the number of concurrent clients."""

    surface: str
    operation: str
    clients: int = 1


class Spread(typing.NamedTuple):
    """A median and its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: collections.abc.Iterable[float]) -> typing.Self:
        values = list(values)
        low, median, high = statistics.quantiles(values * 2 if len(values) == 1 else values, n=4, method="inclusive")
        return cls(*(float(f"{figure:.4g}") for figure in (median, low, high)))

    def show(self, digits: int = 2) -> str:
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclasses.dataclass(kw_only=True, slots=True)
class Figures:
    """One contender in one cell. Times are in µs for one operation; with many clients, the inverse of the rate."""

    rounds: int
    failed: int
    time: Spread
    cpu: Spread
    ratio: Spread
    """Our time as a multiple of this contender's, from pairs of the same round."""
    cpu_ratio: float


@dataclasses.dataclass(kw_only=True, slots=True)
class Outcome:
    """Results of one contender's clients during a fault."""

    reads: int = 0
    failed: int = 0
    stale: int = 0
    """Reads that did not show an earlier write of the same client."""
    on_replica: int = 0
    failed_writes: int = 0
    slowest: float = 0.0
    """Seconds of the slowest read, failed ones included."""

    @property
    def replica_share(self) -> float:
        return self.on_replica / max(self.reads, 1)


@dataclasses.dataclass(kw_only=True, slots=True)
class Results:
    """The figures of a run; those of a contender that failed in every round are absent."""

    machine: dict[str, str] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    is_divided: bool = False
    """Whether the contenders had a reserved processor."""
    cells: dict[Cell, dict[str, Figures]] = dataclasses.field(default_factory=dict)
    """By cell and name of the contender."""
    round_trips: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    """By operation and name of the contender."""
    faults: dict[str, dict[str, Outcome]] = dataclasses.field(default_factory=dict)
    """By fault and name of the contender."""

    def save(self, path: pathlib.Path) -> None:
        cells = [
            {**cell._asdict(), "contender": name, **dataclasses.asdict(each)}
            for cell, found in self.cells.items()
            for name, each in found.items()
        ]
        rest = {name: figures for name, figures in dataclasses.asdict(self).items() if name != "cells"}
        lines = [f"{json.dumps(name)}: {json.dumps(figures)}" for name, figures in rest.items()]
        # One row per line, so that the differences between two runs are readable.
        rows = ",\n".join(map(json.dumps, cells))
        path.write_text("{\n" + ",\n".join(lines) + f',\n"cells": [\n{rows}\n]}}\n')

    @classmethod
    def load(cls, path: pathlib.Path) -> typing.Self:
        found = json.loads(path.read_text())
        cells: dict[Cell, dict[str, Figures]] = collections.defaultdict(dict)
        for row in found.pop("cells"):
            name = row.pop("contender")
            cell = Cell(*(row.pop(field) for field in Cell._fields))
            spreads = {field: Spread(*row[field]) for field in ("time", "cpu", "ratio")}
            cells[cell][name] = Figures(**row | spreads)
        return cls(
            cells=dict(cells),
            faults={
                fault: {name: Outcome(**each) for name, each in outcomes.items()}
                for fault, outcomes in found.pop("faults").items()
            },
            **found,
        )


class Samples(collections.defaultdict[tuple[Cell, str], list[Sample]]):
    """The rounds, by cell and name of the contender."""

    def __init__(self) -> None:
        super().__init__(list)

    def figures(self) -> dict[Cell, dict[str, Figures]]:
        """Return the figures of each cell; a contender without operations in a round is left out."""
        found: dict[Cell, dict[str, Figures]] = collections.defaultdict(dict)
        for (cell, name), theirs in self.items():
            entry = BY_NAME[name]
            ours = self[cell, name if entry.target == OURS.target else entry.rival_of]
            if all(sample.done for sample in (*theirs, *ours)):
                cpu = Spread.of(1e6 * sample.cpu / sample.done for sample in theirs)
                pairs = zip(ours, theirs, strict=True)
                found[cell][name] = Figures(
                    rounds=len(theirs),
                    failed=sum(sample.failed for sample in theirs),
                    time=Spread.of(1e6 * sample.wall / sample.done for sample in theirs),
                    cpu=cpu,
                    ratio=Spread.of((our.wall / our.done) / (their.wall / their.done) for our, their in pairs),
                    cpu_ratio=round(
                        statistics.median(1e6 * sample.cpu / sample.done for sample in ours) / (cpu.median or 1), 3
                    ),
                )
        return dict(found)

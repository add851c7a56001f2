"""Synthetic results of a run that met every limit."""

from benchmarks.contenders.catalogue import AUTOCOMMIT, CONTENDERS, OURS, PINNED, POOL, RECIPE
from benchmarks.faults import CONSTANT_LAG, FAULTS
from benchmarks.plan import BUSY_GET, FULL, ROUTING, SAME_REPLICA, participants
from benchmarks.results import Cell, Outcome, Results, Sample, Samples
from benchmarks.work.operations import OPERATIONS


TIMES = {
    (SAME_REPLICA, RECIPE): 510.0,
    (SAME_REPLICA, POOL): 140.0,
    (ROUTING, AUTOCOMMIT): 190.0,
    (BUSY_GET, RECIPE): 300.0,
}
"""µs of one operation, if not 200."""


def samples(*microseconds: float) -> list[Sample]:
    """Return one round for each given duration of an operation."""
    return [Sample(1000, 0, wall=each / 1e3, cpu=each / 1e3) for each in microseconds]


def made_up_results(changed: dict[tuple[Cell, str], list[Sample]] | None = None) -> Results:
    """Return results that meet all limits, except in the cells whose samples are given."""
    found = Samples()
    for turns in FULL.turns:
        for entry in participants(turns.cell):
            found[turns.cell, entry.name] = samples(*[TIMES.get((turns.cell, entry), 200.0)] * 3)
    found.update(changed or {})
    results = Results(machine={"Python": "4"}, seconds=500, cells=found.figures())
    for operation in OPERATIONS:
        results.round_trips[operation.name] = {entry.name: 1 for entry in CONTENDERS}
    for fault in FAULTS:
        results.faults[fault.name] = {
            entry.name: Outcome(reads=100, slowest=0.5, on_replica=50) for entry in (*CONTENDERS, PINNED)
        }
    results.faults[CONSTANT_LAG.name][OURS.name].on_replica = 90
    return results

"""A run that never took place, in which everything goes as it should."""

import collections

from benchmarks.choice import SIZES
from benchmarks.contenders.catalogue import (
    AUTOCOMMIT,
    CONTENDERS,
    FLOORS,
    FRESHNESS,
    NO_TOKENS,
    ORM,
    OURS,
    POOL,
    RECIPE,
)
from benchmarks.faults import FAULTS
from benchmarks.plan import (
    BUSY_GET,
    CLIENTS,
    ELEVEN_STATEMENTS,
    KEYED_READ,
    ONE_STATEMENT,
    SAME_REPLICA,
    SURFACES,
    TOKEN_FIRST_READ,
    TOKEN_READ,
    TOKEN_WRITE,
    participants,
)
from benchmarks.results import Cell, FaultOutcome, FreshnessOutcome, Results, Sample, Spread
from benchmarks.verdicts import OWN_COST
from benchmarks.work.operations import OPERATIONS


def samples(*microseconds: float) -> list[Sample]:
    """Return a round for each time of one operation."""
    return [Sample(done=1000, failed=0, wall=each / 1e3, cpu=each / 1e3) for each in microseconds]


def made_up_results() -> Results:
    """Return a run that reaches all figures."""
    results = Results(samples=collections.defaultdict(list), machine={"Python": "4"}, seconds=500)
    for surface in SURFACES:
        for clients in CLIENTS:
            for operation in OPERATIONS:
                cell = Cell(surface=surface, operation=operation.name, clients=clients)
                for entry in participants(cell):
                    results.samples[cell, entry.name] = samples(500, 510, 520)
    for entry, each in {OURS: 201, ORM: 209, POOL: 190}.items():
        results.samples[KEYED_READ, entry.name] = results.samples[SAME_REPLICA, entry.name] = samples(each, each, each)
    results.samples[SAME_REPLICA, RECIPE.name] = samples(510, 510, 510)
    results.samples[BUSY_GET, RECIPE.name] = samples(1000, 1000, 1000)
    _add_costs(results)
    _add_counts(results)
    for fault in FAULTS:
        results.faults[fault.name] = {entry.name: FaultOutcome(reads=100, worst=0.5) for entry in CONTENDERS}
    results.freshness = {
        entry.name: FreshnessOutcome(reads=100, on_replica=50, times=[0.002] * 99 + [0.1]) for entry in FRESHNESS
    }
    results.freshness[OURS.name].on_replica = 90
    return results


def _add_costs(results: Results) -> None:
    own = {
        (ONE_STATEMENT, OURS): 115,
        (ONE_STATEMENT, AUTOCOMMIT): 100,
        (ELEVEN_STATEMENTS, OURS): 1165,
        (ELEVEN_STATEMENTS, AUTOCOMMIT): 1100,
    }
    for (cell, entry), each in own.items():
        results.samples[Cell(surface=OWN_COST, operation=cell.operation, clients=1), entry.name] = samples(each, each)
    for cell, each in ((TOKEN_READ, 1000), (TOKEN_FIRST_READ, 1500), (TOKEN_WRITE, 1100)):
        results.samples[cell, OURS.name] = samples(each, each)
        results.samples[cell, NO_TOKENS.name] = samples(1000, 1000)


def _add_counts(results: Results) -> None:
    for entry in CONTENDERS:
        results.memory[entry.name] = 9000
        for operation in OPERATIONS:
            results.round_trips[operation.name, entry.name] = 1
    for floor in FLOORS:
        results.round_trips[KEYED_READ.operation, floor.name] = 1
    results.choices = {"random": dict.fromkeys(SIZES, Spread(median=1e-6, low=1e-6, high=2e-6))}

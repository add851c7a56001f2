"""The figures to reach, and whether this run reached them; and where others are better."""

import dataclasses

from benchmarks.contenders.catalogue import AUTOCOMMIT, CONTENDERS, FLOORS, NO_TOKENS, ORM, OURS, POOL, RECIPE, Entry
from benchmarks.faults import FAULTS
from benchmarks.plan import (
    BUSY_GET,
    ELEVEN_STATEMENTS,
    KEYED_READ,
    ONE_STATEMENT,
    SAME_REPLICA,
    SURFACES,
    TOKEN_READ,
    TOKEN_WRITE,
)
from benchmarks.results import Cell, OwnCost, Results, Spread


OWN_COST = "own cost"
"""The surface of the cells that `OwnCost` is made of: apart from those of the tables, with rounds of their own."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Verdict:
    """One figure to reach."""

    target: str
    figure: str
    reached: bool


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Loss:
    """Where one contender is faster, beyond the spread."""

    entry: Entry
    lost: int
    """Measurements, beyond the spread."""
    at_median: int
    """Measurements, by the median alone."""
    cells: int
    worst: Cell
    ratio: Spread
    """Our time as a multiple of theirs, where it is the largest."""


def own_cost(results: Results, measure: str, reference: Entry = AUTOCOMMIT) -> OwnCost:
    """Return what the library adds to a session that chooses nothing."""
    one, eleven = (dataclasses.replace(cell, surface=OWN_COST) for cell in (ONE_STATEMENT, ELEVEN_STATEMENTS))
    return results.own_cost(one, eleven, reference.name, "cpu" if measure == "cpu" else "wall")


def token_cost(results: Results, cell: Cell) -> Spread:
    """Return the time of a request as a multiple of that of one without tokens."""
    return results.ratio(cell, OURS.name, NO_TOKENS.name)


def orm_share(results: Results) -> Spread:
    """Return the time of SQLAlchemy's `Session` alone as a multiple of that of the raw asyncpg pool."""
    return results.ratio(SAME_REPLICA, ORM.name, POOL.name)


def keyed_read(results: Results, other: Entry, cell: Cell = SAME_REPLICA) -> Spread:
    """Return our time for the read by key as a multiple of another's."""
    return results.ratio(cell, OURS.name, other.name)


def verdicts(results: Results) -> list[Verdict]:
    """Compare a run with the figures to reach."""
    cost = own_cost(results, "cpu")
    rate = results.ratio(BUSY_GET, RECIPE.name, OURS.name)
    trips = results.round_trips[KEYED_READ.operation, OURS.name]
    found = [
        _at_most("ORM read by key, of the time of the modern-di recipe", 0.42, keyed_read(results, RECIPE)),
        _at_most("ORM read by key, of the time of the raw asyncpg pool", 1.30, keyed_read(results, POOL)),
        _at_most("own cost for a request, µs of processor time", 30, in_microseconds(cost.request), digits=0),
        _at_most("own cost for a statement, µs of processor time", 10, in_microseconds(cost.statement), digits=0),
        _at_most("writing request, of the time of one without tokens", 1.15, token_cost(results, TOKEN_WRITE)),
        _at_most("reading request with a token, of the time of one without", 1.05, token_cost(results, TOKEN_READ)),
        Verdict(
            target="GET through FastAPI by 100 clients: at least 1.25 of the requests per second of the recipe",
            figure=shown(rate),
            reached=rate.median >= 1.25,
        ),
        Verdict(target="round trips for a keyed read: 1", figure=str(trips), reached=trips == 1),
    ]
    for fault in FAULTS:
        outcome = results.faults[fault.name][OURS.name]
        figure = f"{outcome.failed} of {outcome.reads}"
        found.append(Verdict(target=f"failed reads while {fault.title}: 0", figure=figure, reached=not outcome.failed))
    worst = results.faults["freeze"][OURS.name].worst
    found.append(
        Verdict(
            target="slowest read while a replica freezes: at most 2.5 s", figure=f"{worst:.2f} s", reached=worst <= 2.5
        )
    )
    return [*found, *_consistency(results)] if results.freshness else found


def _consistency(results: Results) -> list[Verdict]:
    shares = {name: outcome.on_replica / max(1, outcome.reads) for name, outcome in results.freshness.items()}
    ours, best_pin = shares[OURS.name], max(share for name, share in shares.items() if name.startswith("pin"))
    stale = results.freshness[OURS.name].stale
    return [
        Verdict(
            target="reads on replicas at 100 ms of lag, 10 % writes, level SESSION: at least 70 %",
            figure=f"{ours:.0%}",
            reached=ours >= 0.7,
        ),
        Verdict(
            target="more reads on replicas than with any pin",
            figure=f"{ours:.0%}, the best pin {best_pin:.0%}",
            reached=ours > best_pin,
        ),
        Verdict(target="reads that miss the client's own write: 0", figure=str(stale), reached=not stale),
    ]


def _at_most(what: str, limit: float, figure: Spread, *, digits: int = 2) -> Verdict:
    return Verdict(
        target=f"{what}: at most {limit:.{digits}f}", figure=shown(figure, digits), reached=figure.median <= limit
    )


def in_microseconds(spread: Spread) -> Spread:
    return Spread(median=spread.median * 1e6, low=spread.low * 1e6, high=spread.high * 1e6)


def shown(spread: Spread, digits: int = 2) -> str:
    """Return a median with its quartiles, as all tables show them."""
    return f"{spread.median:.{digits}f} ({spread.low:.{digits}f} to {spread.high:.{digits}f})"


def losses(results: Results) -> list[Loss]:
    """Return the contenders that are faster in a cell, beyond the spread; who is so most often comes first."""
    found = []
    for entry in (*rivals(), *FLOORS):
        cells = [cell for cell in results.cells() if cell.surface in SURFACES and (cell, entry.name) in results.samples]
        ratios = {cell: results.ratio(cell, entry.rival_of, entry.name) for cell in cells}
        lost = {cell: ratio for cell, ratio in ratios.items() if ratio.low > 1}
        if lost:
            worst = max(lost, key=lambda cell: lost[cell].median)
            at_median = sum(ratio.median > 1 for ratio in ratios.values())
            found.append(
                Loss(
                    entry=entry,
                    lost=len(lost),
                    at_median=at_median,
                    cells=len(cells),
                    worst=worst,
                    ratio=lost[worst],
                )
            )
    return sorted(found, key=lambda loss: -loss.lost / loss.cells)


def rivals() -> list[Entry]:
    """Return the contenders that are not ourselves."""
    ours = {entry.rival_of for entry in CONTENDERS}
    return [entry for entry in CONTENDERS if entry.name not in ours]

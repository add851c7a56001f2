"""The measurements and their number, for a full and for a quick run."""

import dataclasses
import typing

from benchmarks.contenders.catalogue import AUTOCOMMIT, CONTENDERS, DRIVERS, NO_TOKENS, OURS, POOL, RECIPE, Entry
from benchmarks.results import Cell
from benchmarks.work.operations import OPERATIONS, Operation


KEYED_READ: typing.Final = Cell("session", "orm_read")
SAME_REPLICA: typing.Final = Cell("one replica", "orm_read")
"""All read from the same replica: alternating between two, each server process finds its caches cold."""
ROUTING: typing.Final = Cell("one replica", "core_read")
"""The cost of routing, compared with a session that does none."""
BUSY_GET: typing.Final = Cell("fastapi", "orm_read", 100)
TOKEN_READ: typing.Final = Cell("tokens", "orm_read")
TOKEN_WRITE: typing.Final = Cell("tokens", "write")
"""The cost of tokens through FastAPI, for clients that have written before."""
OTHER_DRIVERS: typing.Final = Cell("drivers", "orm_read")
"""psycopg, and both drivers behind a pooler."""
SURFACES: typing.Final = {"session": "the session alone", "fastapi": "FastAPI"}
HTTP_SURFACES: typing.Final = frozenset({"fastapi", "tokens"})
CLIENTS: typing.Final = (1, 100)
PARTICIPANTS: typing.Final[dict[Cell, tuple[Entry, ...]]] = {
    SAME_REPLICA: (OURS, RECIPE, POOL, AUTOCOMMIT),
    ROUTING: (OURS, AUTOCOMMIT),
    TOKEN_READ: (OURS, NO_TOKENS),
    TOKEN_WRITE: (OURS, NO_TOKENS),
    OTHER_DRIVERS: (OURS, *DRIVERS),
}


def participants(cell: Cell) -> tuple[Entry, ...]:
    """Return the contenders of a cell."""
    return PARTICIPANTS.get(cell, CONTENDERS)


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Turns:
    """How often a cell is measured, and how long each time. In each round, all contenders take a turn.

    Many short rounds instead of a few long ones: a shared machine changes its speed within a second, so only
    simultaneous measurements are comparable.
    """

    cell: Cell
    rounds: int
    seconds: float


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Plan:
    turns: tuple[Turns, ...]
    fault: tuple[float, float, float]
    """Seconds before a fault, while it lasts, and after the recovery."""
    counted: tuple[Operation, ...] = OPERATIONS
    """Operations whose round trips are counted."""


def _turns(cell: Cell) -> Turns:
    precise = {SAME_REPLICA: 40, ROUTING: 40, KEYED_READ: 25, TOKEN_READ: 40, TOKEN_WRITE: 40}
    if cell.clients > 1:
        return Turns(cell=cell, rounds=9 if cell == BUSY_GET else 5, seconds=0.3 if cell == BUSY_GET else 0.15)
    return Turns(cell=cell, rounds=precise.get(cell, 9), seconds=0.12 if cell in precise else 0.06)


FULL: typing.Final = Plan(
    # Pools grow with the number of clients, so one client has to be measured before a hundred.
    turns=(
        *map(_turns, PARTICIPANTS),
        *(
            _turns(Cell(surface, operation.name, clients))
            for surface in SURFACES
            for clients in CLIENTS
            for operation in OPERATIONS
        ),
    ),
    fault=(1.0, 6.0, 3.0),
)
QUICK: typing.Final = Plan(
    turns=(
        *(Turns(cell=cell, rounds=6, seconds=0.1) for cell in (*PARTICIPANTS, KEYED_READ)),
        Turns(cell=BUSY_GET, rounds=3, seconds=0.2),
    ),
    fault=(0.5, 2.6, 0.4),
    counted=OPERATIONS[:1],
)

"""How much is measured: in full, and in a minute."""

import collections.abc
import dataclasses
import typing

from benchmarks.contenders.catalogue import CONNECTION, CONTENDERS, FLOORS, ORM, OURS, POOL, RECIPE, Entry
from benchmarks.results import Cell
from benchmarks.work.operations import ELEVEN_READS, OPERATIONS, Operation


KEYED_READ: typing.Final = Cell(surface="session", operation="orm_read", clients=1)
SAME_REPLICA: typing.Final = Cell(surface="one replica", operation="orm_read", clients=1)
"""The read by key where all read from the same replica: of two in turn, each server process finds its caches cold."""
BUSY_GET: typing.Final = Cell(surface="fastapi", operation="orm_read", clients=100)
ONE_STATEMENT: typing.Final = Cell(surface="session", operation="core_read", clients=1)
TOKEN_READ: typing.Final = Cell(surface="tokens", operation="orm_read", clients=1)
TOKEN_FIRST_READ: typing.Final = Cell(surface="tokens, right after a write", operation="orm_read", clients=1)
TOKEN_WRITE: typing.Final = Cell(surface="tokens", operation="write", clients=1)
"""What tokens cost through FastAPI: apart from the cells of the tables, with rounds of their own."""
ELEVEN_STATEMENTS: typing.Final = Cell(surface="session", operation=ELEVEN_READS.name, clients=1)
SURFACES: typing.Final = {"session": "the bare session", "fastapi": "FastAPI", "litestar": "Litestar"}
HTTP_SURFACES: typing.Final = frozenset({"fastapi", "litestar"})
CLIENTS: typing.Final = (1, 10, 100)


def participants(cell: Cell) -> tuple[Entry, ...]:
    """Return who is measured in a cell."""
    if cell == SAME_REPLICA:
        return (OURS, RECIPE, POOL, ORM)
    if cell == KEYED_READ:
        return (*CONTENDERS, *FLOORS)
    return (*CONTENDERS, CONNECTION) if cell.surface == "session" and cell.clients == 1 else CONTENDERS


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Turns:
    """How often a cell is measured, and how long each time; all contenders take turns within each round.

    Many short rounds rather than a few long ones: a shared machine changes its speed several times in a second, and
    only what runs within the same moment can be compared.
    """

    cell: Cell
    rounds: int
    seconds: float


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Plan:
    turns: tuple[Turns, ...]
    same_replica: Turns
    cost: int
    """Rounds of the own cost."""
    tokens: int
    """Rounds of what tokens cost."""
    fault: tuple[float, float, float]
    """Seconds before a fault, while it lasts, and after it is healed."""
    freshness: float
    """Seconds; 0 for not at all."""
    counted: tuple[Operation, ...] = OPERATIONS
    """What the round trips of are counted."""

    def surfaces(self) -> list[str]:
        return [surface for surface in SURFACES if any(turns.cell.surface == surface for turns in self.turns)]


def _everything() -> collections.abc.Iterator[Turns]:
    for surface in SURFACES:
        # The pools are as large as the clients are many: one client has to come before a hundred.
        for clients in CLIENTS:
            for operation in OPERATIONS:
                cell = Cell(surface=surface, operation=operation.name, clients=clients)
                if cell == KEYED_READ:
                    yield Turns(cell=cell, rounds=25, seconds=0.12)
                elif cell == BUSY_GET:
                    yield Turns(cell=cell, rounds=9, seconds=0.3)
                else:
                    rounds, seconds = {1: (7, 0.05), 10: (6, 0.06), 100: (4, 0.12)}[clients]
                    yield Turns(cell=cell, rounds=rounds, seconds=seconds)


FULL: typing.Final = Plan(
    turns=tuple(_everything()),
    same_replica=Turns(cell=SAME_REPLICA, rounds=40, seconds=0.12),
    cost=400,
    tokens=60,
    fault=(1.0, 6.0, 3.0),
    freshness=20.0,
)
QUICK: typing.Final = Plan(
    turns=(Turns(cell=KEYED_READ, rounds=5, seconds=0.1), Turns(cell=BUSY_GET, rounds=3, seconds=0.2)),
    same_replica=Turns(cell=SAME_REPLICA, rounds=8, seconds=0.1),
    cost=100,
    tokens=12,
    fault=(0.5, 3.0, 0.5),
    freshness=0.0,
    counted=OPERATIONS[:1],
)

"""How much is measured: in full, and in a minute."""

import collections.abc
import dataclasses
import typing

from benchmarks.results import Cell
from benchmarks.work.operations import ELEVEN_READS, OPERATIONS, Operation


KEYED_READ: typing.Final = Cell(surface="session", operation="orm_read", clients=1)
BUSY_GET: typing.Final = Cell(surface="fastapi", operation="orm_read", clients=100)
ONE_STATEMENT: typing.Final = Cell(surface="session", operation="core_read", clients=1)
ELEVEN_STATEMENTS: typing.Final = Cell(surface="session", operation=ELEVEN_READS.name, clients=1)
SURFACES: typing.Final = {"session": "the bare session", "fastapi": "FastAPI", "litestar": "Litestar"}
CLIENTS: typing.Final = (1, 10, 100)


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Turns:
    """How often a cell is measured, and how long each time; all contenders take turns within each round."""

    cell: Cell
    rounds: int
    seconds: float


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Plan:
    turns: tuple[Turns, ...]
    cost: tuple[int, float]
    """Rounds, and seconds of each of their four runs."""
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
                    yield Turns(cell=cell, rounds=15, seconds=0.12)
                elif cell == BUSY_GET:
                    yield Turns(cell=cell, rounds=7, seconds=0.4)
                else:
                    yield Turns(
                        cell=cell,
                        rounds=5 if surface == "session" and clients == 1 else 3,
                        seconds={1: 0.08, 10: 0.1, 100: 0.15}[clients],
                    )


FULL: typing.Final = Plan(turns=tuple(_everything()), cost=(30, 0.08), fault=(1.0, 6.0, 3.0), freshness=20.0)
QUICK: typing.Final = Plan(
    turns=(Turns(cell=KEYED_READ, rounds=5, seconds=0.08), Turns(cell=BUSY_GET, rounds=3, seconds=0.2)),
    cost=(12, 0.05),
    fault=(0.5, 3.0, 0.5),
    freshness=0.0,
    counted=OPERATIONS[:1],
)

"""Let units of work take turns on one connection: the wait has a timeout, and its error names both."""

import asyncio
import collections
import dataclasses
import threading
import typing

from modern_di_replicas.errors import SharedConnectionBusyError


class GivenBack(typing.Protocol):
    """An object that is notified when a connection is returned."""

    def give_back(self) -> None:
        """Return one connection."""


class Turns:
    """Assigns the one connection of a test to one unit of work at a time, with all its sessions.

    A turn ends with the last connection of its unit of work, or as soon as another one waits and this one has nothing
    to lose: no statement in progress, and only reads since the last commit or rollback. It continues with its next
    statement, in a new turn.

    Args:
        timeout: seconds a unit of work waits for its turn.

    """

    def __init__(self, timeout: float) -> None:
        self.number = 0
        """The savepoints of the current turn."""
        self._timeout = timeout
        self._holder: object | None = None
        self._name = ""
        self._connections: collections.Counter[object] = collections.Counter()
        self._in_progress: set[object] = set()
        self._keeps = False
        self._changed = asyncio.Event()
        self.order = asyncio.Lock()
        """Held while savepoints are set and released: statements of two sessions must not interleave."""

    async def take(self, unit: object, name: str) -> None:
        """Wait for a turn, for another connection.

        Raises:
            SharedConnectionBusyError: another unit of work does not end its turn in time.

        """
        await self.resume(unit, name)
        self._connections[unit] += 1

    async def resume(self, unit: object, name: str) -> None:
        """Wait for a turn; the unit of work that has it continues at once.

        Raises:
            SharedConnectionBusyError: another unit of work does not end its turn in time.

        """
        if self._holder is unit:
            return
        try:
            async with asyncio.timeout(self._timeout):
                while self._holder is not None and (self._in_progress or self._keeps):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise SharedConnectionBusyError(waiting=name, holding=self._name, timeout=self._timeout) from None
        self._holder, self._name = unit, name
        self.number += 1

    def give_back(self, unit: object) -> None:
        """Return one connection; the turn ends with the last one."""
        self._connections[unit] -= 1
        if not self._connections[unit]:
            del self._connections[unit]
            if self._holder is unit:
                self._holder = None
                self._in_progress.clear()
                self.settle()

    def begin(self, what: object) -> None:
        """Record an operation in progress, such as a cursor, whose statement may be sent at any time."""
        self._in_progress.add(what)

    def end(self, what: object, *, keeps: bool) -> None:
        """Record its end, and whether it made changes that the transaction must keep."""
        self._in_progress.discard(what)
        if keeps:
            self.keep()
        self._changed.set()

    def keep(self) -> None:
        """Record that the transaction must be kept."""
        self._keeps = True

    def settle(self) -> None:
        """Record that no transaction is open."""
        self._keeps = False
        self._changed.set()


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """The turns of one unit of work.

    Args:
        turns: the turns of all units of work.
        unit: the unit of work.
        name: its name in an error.

    """

    turns: Turns
    unit: object
    name: str

    async def resume(self) -> None:
        """Wait for a turn; see `Turns.resume`."""
        await self.turns.resume(self.unit, self.name)

    def give_back(self) -> None:
        """Return one connection."""
        self.turns.give_back(self.unit)


class ThreadTurns:
    """The same for the threads of a synchronous application, where a turn ends with its last connection only.

    Args:
        timeout: seconds a unit of work waits for its turn.

    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._holder: object | None = None
        self._name = ""
        self._connections = 0
        self._changed = threading.Condition()

    def take(self, unit: object, name: str) -> None:
        """Wait for a turn; see `Turns.take`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._holder in (None, unit), self._timeout):
                raise SharedConnectionBusyError(waiting=name, holding=self._name, timeout=self._timeout)
            self._holder, self._name = unit, name
            self._connections += 1

    def give_back(self) -> None:
        """Return one connection; the turn ends with the last one."""
        with self._changed:
            self._connections -= 1
            if not self._connections:
                self._holder = None
                self._changed.notify_all()


class Savepoints:
    """The savepoints of one turn, in the order of PostgreSQL's stack.

    Sessions of one unit of work may end their transactions in any order, a stack cannot: a savepoint that ends below
    others is released with them.
    """

    def __init__(self) -> None:
        self._turn = 0
        self._open: list[str] = []
        self._ended: set[str] = set()
        self._made = 0

    @property
    def are_open(self) -> bool:
        """Whether a transaction is open."""
        return bool(self._open)

    def abandon(self, turn: int) -> list[str]:
        """Return the statements that end the savepoints of earlier turns, which have only read."""
        if turn == self._turn:
            return []  # another session of this unit of work was first
        self._turn = turn
        statements = [f"RELEASE SAVEPOINT {name}" for name in self._open[:1]]  # and those made after it with it
        self._open.clear()
        self._ended.clear()
        return statements

    def begin(self) -> tuple[str, str]:
        """Return the name of a new savepoint, and the statement that makes it."""
        self._made += 1
        name = f"unit_of_work_{self._made}"
        self._open.append(name)
        return name, f"SAVEPOINT {name}"

    def release(self, name: str) -> list[str]:
        """Return the statements that end a savepoint and keep its changes."""
        self._ended.add(name)
        statements = []
        while self._open and self._open[-1] in self._ended:
            top = self._open.pop()
            self._ended.discard(top)
            statements.append(f"RELEASE SAVEPOINT {top}")
        return statements

    def roll_back(self, name: str) -> list[str]:
        """Return the statements that undo a savepoint; those made after it are undone as well, as PostgreSQL does."""
        if name not in self._open:
            return []  # a savepoint below was rolled back
        position = self._open.index(name)
        self._ended.difference_update(self._open[position:])
        del self._open[position:]
        return [f"ROLLBACK TO SAVEPOINT {name}", f"RELEASE SAVEPOINT {name}"]

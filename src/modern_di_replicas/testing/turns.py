"""Units of work take turns on one connection: the wait is bounded, and its error names both."""

import asyncio
import threading
import typing

from modern_di_replicas.errors import SharedConnectionBusyError


class GivenBack(typing.Protocol):
    """What is told when a connection is given back."""

    def give_back(self) -> None:
        """Give one connection back."""


class Turns:
    """Who uses the one connection of a test now: one unit of work at a time, with all its sessions.

    Args:
        timeout: seconds a unit of work waits for its turn.

    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._holder: object | None = None
        self._name = ""
        self._connections = 0
        self._ended = asyncio.Event()

    async def take(self, unit: object, name: str) -> None:
        """Wait for a turn; a unit of work that has it already takes another connection at once.

        Raises:
            SharedConnectionBusyError: another unit of work does not end its turn in time.

        """
        try:
            async with asyncio.timeout(self._timeout):
                while self._holder is not None and self._holder is not unit:
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            raise SharedConnectionBusyError(waiting=name, holding=self._name, timeout=self._timeout) from None
        self._holder, self._name = unit, name
        self._connections += 1

    def give_back(self) -> None:
        """Give one connection back; the turn ends with the last one."""
        self._connections -= 1
        if not self._connections:
            self._holder = None
            self._ended.set()


class ThreadTurns:
    """The same for the threads of a synchronous application.

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
        """Give one connection back; the turn ends with the last one."""
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
        self._open: list[str] = []
        self._ended: set[str] = set()
        self._made = 0

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

"""Wait for a coroutine in both halves: an asynchronous application awaits it, a synchronous one blocks."""

import asyncio
import collections.abc
import threading
import typing

from sqlalchemy import AdaptedConnection, Dialect
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.util import await_only

from modern_di_replicas.cluster.background import background
from modern_di_replicas.cluster.failures import Failure, note_failure
from modern_di_replicas.cluster.names import is_name, names


Result = typing.TypeVar("Result")

Ask = collections.abc.Callable[[typing.Any], collections.abc.Coroutine[typing.Any, typing.Any, Result]]
"""Takes the driver's connection."""


def wait_for(dialect: Dialect, coroutine: collections.abc.Coroutine[typing.Any, typing.Any, Result]) -> Result:
    """Return the result of a coroutine that uses no connection of the engine.

    Args:
        dialect: the dialect of the engine that needs it.
        coroutine: in a synchronous application it runs in the background thread.

    """
    return await_only(coroutine) if dialect.is_async else background.run(coroutine)


def ask(dialect: Dialect, connection: DBAPIConnection, question: Ask[Result]) -> Result:
    """Return the result of a coroutine function of the driver on a pooled connection.

    Args:
        dialect: the dialect of the connection's engine.
        connection: SQLAlchemy's connection.
        question: the function; in a synchronous application it never suspends, because the driver blocks.

    """
    if dialect.is_async:
        return typing.cast(AdaptedConnection, connection).run_async(question)
    return complete(question(connection))


def complete(coroutine: collections.abc.Coroutine[typing.Any, typing.Any, Result]) -> Result:
    """Return the result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return typing.cast(Result, ended.value)
    coroutine.close()
    msg = "a coroutine of a synchronous driver has suspended"
    raise AssertionError(msg)


def find_names(dialect: Dialect, hosts: object, *, timeout: float) -> None:
    """Wait until the names of a server are resolved; see `Names.find`. An address needs no wait."""
    if dialect.is_async or (isinstance(hosts, str) and any(map(is_name, hosts.split(",")))):
        try:
            wait_for(dialect, names.find(hosts, timeout=timeout))
        except OSError as error:
            note_failure(error, Failure.DOWN)
            raise


class Signal:
    """An event that tasks can wait for and any thread can set; `asyncio.Event` is for one thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self.is_set = False

    def set(self) -> None:
        """Wake all waiting tasks; later ones do not wait."""
        with self._lock:
            self.is_set = True
            waiting, self._waiting = self._waiting, []
        for loop, event in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    async def wait(self) -> None:
        """Wait until it is set."""
        event = asyncio.Event()
        with self._lock:
            if self.is_set:
                return
            self._waiting.append((asyncio.get_running_loop(), event))
        await event.wait()


class Deadline:
    """Calls a function in the background thread if a block takes longer than some seconds."""

    def __init__(self, seconds: float, late: collections.abc.Callable[[], None]) -> None:
        self._seconds = seconds
        self._late = late
        self._lock = threading.Lock()
        self._has_ended = False
        self.has_passed = False
        """Whether the function was called."""

    def __enter__(self) -> typing.Self:
        self._loop = background.loop
        self._loop.call_soon_threadsafe(self._start)
        return self

    def _start(self) -> None:
        self._timer = self._loop.call_later(self._seconds, self._pass)

    def _pass(self) -> None:
        with self._lock:
            if self._has_ended:
                return
            self.has_passed = True
        self._late()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._has_ended = True

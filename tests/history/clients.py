"""Many concurrent clients that write and read, each with its own behaviour, and the results they get."""

import asyncio
import collections.abc
import contextlib
import dataclasses
import json
import random
import time
import typing

from tests.history.events import Event, History, Operation
from tests.history.visitor import Visitor


SHARED: typing.Final = "shared"
"""The register that some clients write and all clients read."""

WRITERS: typing.Final = 16
READERS: typing.Final = 8
STEADY_WRITERS: typing.Final = 2

SELDOM: typing.Final = 0.02
OFTEN: typing.Final = 0.14
"""Shares of writes among a client's operations: some clients write rarely, so that a pin ends before they read."""

STEADY_PAUSE: typing.Final = 0.1
FAILURE_PAUSE: typing.Final = 0.05
TIMEOUT: typing.Final = 20.0
"""Seconds for which a client waits for a response."""

INTERRUPTED: typing.Final = 0.5
"""Share of the commits that are interrupted, while interruptions are on."""

Look = collections.abc.Callable[[str], collections.abc.Awaitable[int | None]]
Step = tuple[Operation, str]


class Clients:
    """Runs operations until it is stopped. Each client runs one at a time, each on a random worker.

    Args:
        history: contains the workers, and records the events.
        look: returns the content of a register of the primary, read directly.
        pause: seconds between two operations of a client; 0 keeps the processors busy.
        seed: makes the choices reproducible.

    """

    def __init__(self, history: History, look: Look, *, pause: float = 0.0, seed: int = 0) -> None:
        self._history = history
        self._look = look
        self._pause = pause
        self._random = random.Random(seed)  # noqa: S311  # for variety
        self._is_over = False

    @staticmethod
    def registers() -> list[str]:
        """Return the names of all registers: one shared, and one per writer that only this client writes."""
        return [SHARED, *(f"writer-{number}" for number in range(WRITERS))]

    def stop(self) -> None:
        self._is_over = True

    async def work(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(WRITERS):
                share = SELDOM + (OFTEN - SELDOM) * number / (WRITERS - 1)
                group.create_task(self._visit(f"writer-{number}", writes=share))
            for number in range(READERS):
                group.create_task(self._visit(f"reader-{number}", writes=0.0))
            for number in range(STEADY_WRITERS):
                group.create_task(self._visit(f"steady-{number}", writes=1.0))

    async def _visit(self, name: str, *, writes: float) -> None:
        async with Visitor(name) as visitor:
            while not self._is_over:
                event = await self._do(visitor, *self._choose(name, writes))
                self._history.events.append(event)
                if event.failure and event.operation is Operation.WRITE and event.key == name:
                    await self._find(event)
                await asyncio.sleep(self._pause)
                if event.failure:
                    await asyncio.sleep(FAILURE_PAUSE)
                elif writes == 1.0:
                    await asyncio.sleep(STEADY_PAUSE)

    async def _find(self, write: Event) -> None:
        """Read the table directly after a failed write: its client must see the row if it is there."""
        found = await self._look(write.key)
        if found is not None:
            now = time.monotonic()
            self._history.events.append(
                dataclasses.replace(
                    write, began=now, ended=now, value=found, worker=0, failure=f"{write.failure}, found in the table"
                )
            )

    def _choose(self, name: str, writes: float) -> Step:
        if self._random.random() < writes:
            return Operation.WRITE, SHARED if writes == 1.0 else name
        if writes and self._random.random() < 0.6:
            return Operation.READ, name
        return self._random.choice((Operation.READ, Operation.BOUNDED)), SHARED

    async def _do(self, visitor: Visitor, operation: Operation, key: str) -> Event:
        method = "POST" if operation is Operation.WRITE else "GET"
        path = f"/{'bounded' if operation is Operation.BOUNDED else 'registers'}/{key}"
        if operation is Operation.WRITE and key == visitor.name and self._random.random() < INTERRUPTED:
            path += f"?commit={self._history.interruption}"
        port_of_worker = self._random.choice(self._history.ports)
        began = time.monotonic()
        value = port = by_replica = None
        failure = traceback = ""
        try:
            async with asyncio.timeout(TIMEOUT):
                status, body = await visitor.request(port_of_worker, method, path)
        except (OSError, asyncio.IncompleteReadError) as error:  # TimeoutError is an OSError
            failure = type(error).__name__
        else:
            if status == 200:
                with contextlib.suppress(ValueError):
                    value, port, by_replica = json.loads(body)
            else:
                failure, traceback = f"status {status}", body.decode()
        return Event(
            client=visitor.name,
            operation=operation,
            key=key,
            began=began,
            ended=time.monotonic(),
            value=value,
            worker=visitor.worker,
            port=port,
            by_replica=by_replica,
            failure=failure,
            traceback=traceback,
        )

"""The worker processes, from the view of the experiment."""

import asyncio
import asyncio.subprocess
import collections.abc
import contextlib
import dataclasses
import json
import pathlib
import sys
import typing

from tests.history.application import FLASK, WorkerSettings
from tests.history.visitor import Visitor
from tests.waiting import until


ROOT: typing.Final = pathlib.Path(__file__).parents[2]
START_SECONDS: typing.Final = 60.0
END_SECONDS: typing.Final = 15.0


@contextlib.asynccontextmanager
async def working(
    settings: WorkerSettings, *, count: int, log: typing.IO[bytes]
) -> collections.abc.AsyncIterator[tuple[list[int], list[int]]]:
    """Start workers and yield their ports and the number that identifies each; the end of the block stops them.

    Args:
        settings: those of each worker.
        count: how many.
        log: receives their standard error.

    """
    async with contextlib.AsyncExitStack() as stack:
        given = json.dumps(dataclasses.asdict(settings))
        is_forked = settings.variant == FLASK
        commands = [["threaded", given, str(count)]] if is_forked else [["application", given]] * count
        processes = [await stack.enter_async_context(_process(command, log)) for command in commands]
        async with asyncio.timeout(START_SECONDS):
            ports = [await _port(process) for process in processes]
            found = ports, await _forked(ports[0], count) if is_forked else ports
        yield found


async def _forked(port: int, count: int) -> list[int]:
    """Return the process ids of all workers that listen on a port."""
    found: set[int] = set()

    async def have_answered() -> bool:
        async with Visitor("starter") as visitor:
            await visitor.request(port, "GET", "/registers/shared")
            found.add(visitor.worker)
        return len(found) == count

    await until(have_answered)
    return sorted(found)


@contextlib.asynccontextmanager
async def _process(
    command: list[str], log: typing.IO[bytes]
) -> collections.abc.AsyncIterator[asyncio.subprocess.Process]:
    module, *arguments = command
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"tests.history.{module}", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), END_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _port(process: asyncio.subprocess.Process) -> int:
    output = typing.cast(asyncio.StreamReader, process.stdout)
    return int(await output.readline())

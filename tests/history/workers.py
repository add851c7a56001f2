"""The worker processes, as the experiment sees them."""

import asyncio
import asyncio.subprocess
import collections.abc
import contextlib
import dataclasses
import json
import pathlib
import sys
import typing

from tests.history.application import WorkerSettings


ROOT: typing.Final = pathlib.Path(__file__).parents[2]
START_SECONDS: typing.Final = 60.0
END_SECONDS: typing.Final = 15.0


@contextlib.asynccontextmanager
async def working(
    settings: WorkerSettings, *, count: int, log: typing.IO[bytes]
) -> collections.abc.AsyncIterator[list[int]]:
    """Start workers and give their ports; leaving the block ends them.

    Args:
        settings: what each of them has to know.
        count: how many.
        log: takes what they print on their standard error.

    """
    async with contextlib.AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(_process(settings, log)) for _ in range(count)]
        async with asyncio.timeout(START_SECONDS):
            ports = [await _port(process) for process in processes]
        yield ports


@contextlib.asynccontextmanager
async def _process(
    settings: WorkerSettings, log: typing.IO[bytes]
) -> collections.abc.AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.history.application", json.dumps(dataclasses.asdict(settings))),
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

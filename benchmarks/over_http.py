"""Requests to contenders behind an HTTP server, sent by the benchmark's process."""

import collections.abc
import contextlib
import itertools
import random
import typing

from benchmarks.closed_loop import closed_loop
from benchmarks.http_client import Client
from benchmarks.plan import TOKEN_READ, TOKEN_WRITE
from benchmarks.results import Cell, Sample
from benchmarks.schema import BOOKS
from benchmarks.work.operations import BY_NAME
from benchmarks.workers import Worker


GOOD: typing.Final = (200, 201)


async def run(worker: Worker, cell: Cell, seconds: float) -> Sample:
    """Let the clients of one contender send requests one after another, for a given time."""
    paths = _paths(cell)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(Client(worker.port))) for _ in range(cell.clients)]
        if cell == TOKEN_READ:
            await _succeeds(clients[0], next(_paths(TOKEN_WRITE)))

        async def request(number: int) -> bool:
            return await _succeeds(clients[number], next(paths))

        async def cpu() -> float:
            seconds: float = (await worker.ask("cpu"))["cpu"]
            return seconds

        return await closed_loop(request, cpu, clients=cell.clients, seconds=seconds)


async def _succeeds(client: Client, request: tuple[str, str]) -> bool:
    try:
        status, _ = await client.request(*request)
    except OSError:  # uvicorn closes the connection after an exception
        return False
    return status in GOOD


def _paths(cell: Cell) -> collections.abc.Iterator[tuple[str, str]]:
    """Yield the method and path of each request: the same keys for all contenders."""
    operation = BY_NAME[cell.operation]
    keys = random.Random(0).sample(range(1, BOOKS + 1), BOOKS)  # noqa: S311
    for key in itertools.cycle(keys):
        yield "POST" if operation.writes else "GET", f"/{operation.name}/{key}"

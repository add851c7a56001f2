"""The requests to contenders behind an HTTP server, from visitors in the process of the command."""

import collections.abc
import contextlib
import itertools
import math
import random
import time
import typing

from benchmarks.closed_loop import closed_loop
from benchmarks.http_client import Visitor
from benchmarks.plan import TOKEN_FIRST_READ, TOKEN_WRITE
from benchmarks.results import Cell, Sample, sample_of
from benchmarks.schema import BOOKS
from benchmarks.work.operations import BY_NAME
from benchmarks.workers import Worker


GOOD: typing.Final = (200, 201)
WARM_UP: typing.Final = 5
ALTERNATIONS: typing.Final = 25


async def run(worker: Worker, cell: Cell, seconds: float) -> Sample:
    """Let the visitors of one contender send requests, one after another, for so long."""
    path = _paths(cell)
    with contextlib.ExitStack() as stack:
        visitors = [stack.enter_context(contextlib.closing(Visitor(worker.port))) for _ in range(cell.clients)]

        async def request(number: int) -> bool:
            return await _succeeds(visitors[number], next(path))

        cpu = (await worker.ask("cpu"))["cpu"]
        count = await closed_loop(request, clients=cell.clients, seconds=seconds)
        return sample_of(count, (await worker.ask("cpu"))["cpu"] - cpu)


async def alternate(workers: list[Worker], cell: Cell, seed: int) -> dict[str, Sample]:
    """Have one visitor of each contender, who has just written, take turns request by request.

    For a difference that is too small for runs one after another: between two of them the machine changes.
    """
    order, path, writing = random.Random(seed), _paths(cell), _paths(TOKEN_WRITE)  # noqa: S311
    walls = {worker.entry.name: 0.0 for worker in workers}
    failed = dict.fromkeys(walls, 0)
    with contextlib.ExitStack() as stack:
        visits = [(worker, stack.enter_context(contextlib.closing(Visitor(worker.port)))) for worker in workers]
        for _, visitor in visits:
            await _succeeds(visitor, next(writing))
        for number in range(-WARM_UP, ALTERNATIONS):
            order.shuffle(visits)
            for worker, visitor in visits:
                if cell == TOKEN_FIRST_READ:
                    await _succeeds(visitor, next(writing))
                started = time.perf_counter()
                succeeded = await _succeeds(visitor, next(path))
                if number >= 0:
                    walls[worker.entry.name] += time.perf_counter() - started
                    failed[worker.entry.name] += not succeeded
    return {
        name: Sample(done=ALTERNATIONS - failed[name], failed=failed[name], wall=wall, cpu=math.nan)
        for name, wall in walls.items()
    }


async def _succeeds(visitor: Visitor, request: tuple[str, str]) -> bool:
    try:
        status, _ = await visitor.request(*request)
    except OSError:  # uvicorn hangs up after an exception
        return False
    return status in GOOD


def _paths(cell: Cell) -> collections.abc.Iterator[tuple[str, str]]:
    """Return method and path of one request after another: the same keys for all."""
    operation = BY_NAME[cell.operation]
    keys = random.Random(0).sample(range(1, BOOKS + 1), BOOKS)  # noqa: S311
    for key in itertools.cycle(keys):
        yield "POST" if operation.writes else "GET", f"/{operation.name}/{key}"

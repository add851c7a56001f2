"""Contenders in one process, a few requests of each in turn: for a difference of a few microseconds.

Between runs that come one after another, a shared machine changes its speed by more than that.
"""

import collections
import collections.abc
import itertools
import random
import time
import typing

from benchmarks.contenders.contender import Contender
from benchmarks.work.operations import BY_NAME


TURNS: typing.Final = {"core_read": 6, "eleven_reads": 2}
"""How many requests come one after another: the first of them find the other contender's memory in the cache."""

Times = tuple[float, float]
"""Wall time and processor time of a turn, in seconds."""


async def alternate(
    contenders: dict[str, Contender], keys: collections.abc.Iterator[int], *, rounds: int
) -> dict[str, dict[str, list[Times]]]:
    """Return the times of each turn, by operation and name of the contender.

    Args:
        contenders: by name; started.
        keys: what is read.
        rounds: how many.

    """
    found: dict[str, dict[str, list[Times]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    cells = list(itertools.product(TURNS, contenders))
    for number in range(-1, rounds):  # the first is for warming up
        random.Random(number).shuffle(cells)  # noqa: S311
        for operation, name in cells:
            work, writes = contenders[name].work[operation], BY_NAME[operation].writes
            started, used = time.perf_counter(), time.process_time()
            for _ in range(TURNS[operation]):
                async with contenders[name].unit_of_work(writes=writes) as session:
                    await work(session, next(keys))
            times = time.perf_counter() - started, time.process_time() - used
            if number >= 0:
                found[operation][name].append(times)
    return found

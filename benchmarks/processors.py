"""One processor for the contenders, and the others for the servers and the visitors.

A server that happens to run on its client's processor answers in a third of the time that it takes from another one,
since nobody has to be woken there. Where the system puts them changes during a run, and not for all contenders alike.
"""

import collections.abc
import contextlib

import psutil


@contextlib.contextmanager
def divided() -> collections.abc.Iterator[list[int]]:
    """Leave one processor to the contenders, and give its number; nothing where it cannot be done.

    What this process starts meanwhile keeps to the others, as it does itself.
    """
    process = psutil.Process()
    available = sorted(process.cpu_affinity() or []) if hasattr(process, "cpu_affinity") else []
    if len(available) < 2:
        yield []
        return
    process.cpu_affinity(available[1:])
    try:
        yield available[:1]
    finally:
        process.cpu_affinity(available)


def keep_to(processors: list[int]) -> None:
    """Have this process, and what it starts, run on these processors only; on all when there are none."""
    if processors:
        psutil.Process().cpu_affinity(processors)

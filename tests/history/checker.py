"""Finds violations of the guarantees in a history. Pure: a history in, violations out.

Each check uses only facts that a client can be sure of. A write counts from the time its client was told that it
succeeded; a failed write may or may not have happened, and counts as neither.
"""

import bisect
import collections
import collections.abc
import dataclasses
import itertools
import math

from tests.history.events import Disturbance, Event, History, Operation


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Violation:
    """A violated guarantee."""

    kind: str
    read: Event
    at_least: int | None
    """The value the read should have returned; None for a read that should not have failed."""
    because: Event | None
    """The write or the earlier read that proves it."""

    def __str__(self) -> str:
        read, cause = self.read, self.because
        told = "" if cause is None else f"; {cause.operation.value} of {cause.client} at {cause.port} {_times(cause)}"
        return (
            f"{self.kind}: {read.client} read {read.key} at {read.port} {_times(read)} and got "
            f"{read.failure or read.value}, not {self.at_least}{told}"
        )


def _times(event: Event) -> str:
    return f"[{event.began:.4f}, {event.ended:.4f}]"


class _Acknowledged:
    """The greatest value acknowledged before a given time."""

    def __init__(self, writes: collections.abc.Iterable[Event]) -> None:
        self._writes: list[Event] = []
        for write in sorted(writes, key=lambda write: write.ended):
            # Of two concurrent writes, the lesser value may be acknowledged later.
            if not self._writes or _value(write) > _value(self._writes[-1]):
                self._writes.append(write)
        self._times = [write.ended for write in self._writes]

    def before(self, at: float) -> Event | None:
        index = bisect.bisect_left(self._times, at)
        return self._writes[index - 1] if index else None


def _value(event: Event) -> int:
    return -1 if event.value is None else event.value


def _acknowledged(
    events: collections.abc.Iterable[Event], name: collections.abc.Callable[[Event], object]
) -> dict[object, _Acknowledged]:
    writes: dict[object, list[Event]] = collections.defaultdict(list)
    for event in events:
        if event.operation is Operation.WRITE and event.value is not None:
            writes[name(event)].append(event)
    return {key: _Acknowledged(of_key) for key, of_key in writes.items()}


def read_your_writes(history: History) -> list[Violation]:
    """Find the reads of SESSION that miss a write of their own client, on any worker and server.

    A read that began after a write of its client had succeeded returns that write or a later one.
    """
    written = _acknowledged(history.events, lambda event: (event.client, event.key))
    return _misses(
        "read-your-writes",
        (event for event in history.events if event.operation is Operation.READ),
        lambda read: written.get((read.client, read.key)),
        age=0.0,
    )


def bounded_staleness(history: History, *, lag: float) -> list[Violation]:
    """Find the bounded reads that are too old, whichever client wrote.

    A read that began at t includes every write acknowledged to any client before t - lag.
    """
    written = _acknowledged(history.events, lambda event: event.key)
    return _misses(
        "bounded staleness",
        (event for event in history.events if event.operation is Operation.BOUNDED),
        lambda read: written.get(read.key),
        age=lag,
    )


def _misses(
    kind: str,
    reads: collections.abc.Iterable[Event],
    written_for: collections.abc.Callable[[Event], _Acknowledged | None],
    *,
    age: float,
) -> list[Violation]:
    found = []
    for read in reads:
        written = written_for(read)
        write = None if written is None or read.value is None else written.before(read.began - age)
        if write is not None and _value(read) < _value(write):
            found.append(Violation(kind=kind, read=read, at_least=write.value, because=write))
    return found


def monotonic_reads(history: History, *, grace: float) -> list[Violation]:
    """Find the reads that go back behind an earlier read of the same client and register, with affinity.

    Affinity guarantees that a client's reads stay on one replica, which itself never goes back. Therefore the SESSION
    reads that replicas answered are compared, each with the previous one. Going back is a violation

    - always, if the same replica answered both;
    - if two replicas did, the client has never written, and neither replica was disturbed meanwhile.

    A client that leaves its replica may miss writes of *other* clients that it has already seen there. This is not
    guaranteed, and not counted. A client leaves when its replica does not serve, or does not have the position of the
    client's token yet: then another replica answers, or the primary, which is ahead of all.

    Args:
        history: the events of a run.
        grace: seconds after a disturbance until all workers have noticed its end.

    """
    writers = {event.client for event in history.events if event.operation is Operation.WRITE}
    reads: dict[tuple[str, str], list[Event]] = collections.defaultdict(list)
    for event in sorted(history.events, key=lambda event: event.began):
        if event.operation is Operation.READ and event.by_replica:
            reads[event.client, event.key].append(event)
    found = []
    for (client, _), of_client in reads.items():
        for earlier, later in itertools.pairwise(of_client):
            if earlier.ended > later.began or _value(later) >= _value(earlier):
                continue
            moved = earlier.port != later.port
            if moved and (client in writers or _is_disturbed(history.disturbances, earlier, later, grace=grace)):
                continue
            found.append(Violation(kind="monotonic reads", read=later, at_least=earlier.value, because=earlier))
    return found


def _is_disturbed(
    disturbances: collections.abc.Iterable[Disturbance], earlier: Event, later: Event, *, grace: float
) -> bool:
    return any(
        {earlier.port, later.port} & disturbance.ports and disturbance.overlaps(earlier.began, later.ended, grace=grace)
        for disturbance in disturbances
    )


def reads_answered(history: History, *, grace: float) -> list[Violation]:
    """Find the reads that failed although a server could have answered.

    While there is no primary, a bounded read may fail, and a read of a client that has written: possibly no replica is
    known to be fresh enough. The replicas serve all other reads, whatever happens.
    """
    first_writes: dict[str, float] = {}
    for event in history.events:
        if event.operation is Operation.WRITE:
            first_writes[event.client] = min(first_writes.get(event.client, math.inf), event.began)
    windows = [disturbance for disturbance in history.disturbances if disturbance.without_primary]
    return [
        Violation(kind="failed reads", read=event, at_least=None, because=None)
        for event in history.events
        if event.is_read and event.value is None
        if (event.operation is Operation.READ and event.began < first_writes.get(event.client, math.inf))
        or not any(window.overlaps(event.began, event.ended, grace=grace) for window in windows)
    ]


def check(history: History, *, lag: float, grace: float) -> list[Violation]:
    """Return all violations in a history.

    Args:
        history: the events of a run.
        lag: how old a bounded read may be, in seconds.
        grace: seconds after a disturbance until all workers have noticed its end.

    """
    return [
        *read_your_writes(history),
        *monotonic_reads(history, grace=grace),
        *bounded_staleness(history, lag=lag),
        *reads_answered(history, grace=grace),
    ]


def report(violations: collections.abc.Iterable[Violation], history: History, *, grace: float) -> str:
    """Return each violation, with the concurrent disturbances and the application's traceback."""
    return "\n".join(line for violation in violations for line in _told(violation, history, grace=grace))


def _told(violation: Violation, history: History, *, grace: float) -> collections.abc.Iterator[str]:
    yield str(violation)
    read = violation.read
    for disturbance in history.disturbances:
        if disturbance.overlaps(read.began, read.ended, grace=grace):
            ports = ", ".join(map(str, sorted(disturbance.ports)))
            yield f"    {disturbance.name} of {ports} [{disturbance.began:.4f}, {disturbance.ended:.4f}]"
    yield from read.traceback.splitlines()

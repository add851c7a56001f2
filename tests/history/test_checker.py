"""The checker finds injected violations, and none in correct histories."""

import dataclasses
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.history.checker import (
    bounded_staleness,
    check,
    monotonic_reads,
    read_your_writes,
    reads_answered,
)
from tests.history.events import Disturbance, Event, History, Operation


LAG = 0.5
GRACE = 5.0
PRIMARY, FIRST, SECOND = 1, 2, 3


def write(client: str, value: int | None, *, at: float, ended: float | None = None, key: str = "k") -> Event:
    return Event(
        client=client,
        operation=Operation.WRITE,
        key=key,
        began=at,
        ended=at if ended is None else ended,
        value=value,
        port=PRIMARY,
        by_replica=False,
    )


def read(  # noqa: PLR0913  # each is one fact, by its name
    client: str,
    value: int | None,
    *,
    at: float,
    port: int = FIRST,
    operation: Operation = Operation.READ,
    key: str = "k",
) -> Event:
    return Event(
        client=client,
        operation=operation,
        key=key,
        began=at,
        ended=at,
        value=value,
        port=port,
        by_replica=port != PRIMARY,
    )


def history(*events: Event, disturbed: Disturbance | None = None) -> History:
    return History(events=list(events), disturbances=[] if disturbed is None else [disturbed])


def disturbance(*ports: int, began: float, ended: float, without_primary: bool = False) -> Disturbance:
    return Disturbance(name="crash", ports=frozenset(ports), began=began, ended=ended, without_primary=without_primary)


def test_a_client_that_misses_its_own_write_is_found() -> None:
    """The violation names the value that was read and the write that contradicts it."""
    wrote, missed = write("a", 7, at=1), read("a", 6, at=2)

    (violation,) = read_your_writes(history(wrote, missed))

    assert (violation.read, violation.because, violation.at_least) == (missed, wrote, 7)
    assert "a read k at 2" in str(violation)


@pytest.mark.parametrize(
    "events",
    [
        [write("a", 7, at=1), read("a", 7, at=2)],
        [write("a", 7, at=1), read("a", 9, at=2)],
        [write("a", 7, at=1), read("b", 6, at=2)],
        [write("a", 7, at=1), read("a", 6, at=2, key="other")],
        [write("a", 7, at=1, ended=3), read("a", 6, at=2)],
        [write("a", None, at=1), read("a", 6, at=2)],
        [write("a", None, at=1), read("a", 7, at=2)],
        [write("a", 7, at=1), read("a", 6, at=2, operation=Operation.BOUNDED)],
        [write("a", 7, at=1), read("a", None, at=2)],
    ],
    ids=["same", "newer", "another's", "elsewhere", "in-flight", "failed", "failed-and-done", "bounded", "no-answer"],
)
def test_a_write_unknown_to_the_client_is_not_a_violation(events: list[Event]) -> None:
    """A write counts for its client and register, once the client was told that it succeeded."""
    assert read_your_writes(history(*events)) == []


def test_a_write_that_is_acknowledged_late_does_not_hide_a_greater_one() -> None:
    """With two overlapping writers, the lesser value may be acknowledged last."""
    events = [write("a", 8, at=1, ended=2), write("b", 7, at=1, ended=3)]

    (violation,) = bounded_staleness(history(*events, read("c", 7, at=9, operation=Operation.BOUNDED)), lag=LAG)

    assert violation.at_least == 8


@pytest.mark.parametrize(("age", "found"), [(LAG + 0.1, 1), (LAG - 0.1, 0)])
def test_a_bounded_read_may_miss_only_writes_within_its_bound(age: float, found: int) -> None:
    """For a write of any client."""
    events = [write("a", 7, at=1), read("b", 6, at=1 + age, operation=Operation.BOUNDED)]

    assert len(bounded_staleness(history(*events), lag=LAG)) == found


def test_a_replica_that_goes_back_is_found_after_any_fault() -> None:
    """Also after a crash: the library must detect that a replica has returned with older data."""
    events = [read("a", 7, at=1), read("a", 6, at=2)]

    assert len(monotonic_reads(history(*events), grace=GRACE)) == 1
    assert len(monotonic_reads(history(*events, disturbed=disturbance(FIRST, began=1, ended=2)), grace=GRACE)) == 1


def test_a_reader_that_leaves_its_replica_without_need_and_goes_back_is_found() -> None:
    """Round robin over replicas with different lag."""
    events = [read("a", 7, at=1), read("a", 6, at=2, port=SECOND)]

    assert len(monotonic_reads(history(*events), grace=GRACE)) == 1
    elsewhen = disturbance(FIRST, began=8, ended=9)
    assert len(monotonic_reads(history(*events, disturbed=elsewhen), grace=GRACE)) == 1


@pytest.mark.parametrize("began", [0.0, 1.5])
def test_a_reader_may_leave_a_replica_that_is_disturbed(began: float) -> None:
    """Now, or so recently that not every worker has noticed the end."""
    events = [read("a", 7, at=1), read("a", 6, at=2, port=SECOND)]

    disturbed = disturbance(SECOND, began=began, ended=began + 0.1)
    assert monotonic_reads(history(*events, disturbed=disturbed), grace=GRACE) == []


def test_reads_without_an_affinity_guarantee_are_not_counted() -> None:
    """A client's own token may send it elsewhere; answers of the primary are not those of a replica."""
    moved = [read("a", 7, at=1), read("a", 6, at=2, port=SECOND), write("a", 1, at=3, key="own")]
    over_primary = [read("a", 5, at=1), read("a", 7, at=2, port=PRIMARY), read("a", 6, at=3)]

    assert monotonic_reads(history(*moved), grace=GRACE) == []
    assert monotonic_reads(history(*over_primary), grace=GRACE) == []


def test_a_failed_read_is_a_violation_unless_only_a_primary_could_have_answered() -> None:
    """Without a primary, clients without a token still read from the replicas."""
    window = disturbance(PRIMARY, began=5, ended=6, without_primary=True)
    wrote = write("a", 7, at=1)

    def failures(*reads: Event) -> list[float]:
        return [found.read.began for found in reads_answered(history(wrote, *reads, disturbed=window), grace=GRACE)]

    assert failures(read("a", None, at=2), read("a", None, at=5.5), read("a", None, at=20)) == [2, 20]
    assert failures(read("b", None, at=5.5)) == [5.5]
    assert failures(read("b", None, at=5.5, operation=Operation.BOUNDED)) == []


@dataclasses.dataclass
class Model:
    """A primary, two replicas, and a correct or incorrect router; the model records its errors."""

    careful: bool
    now: float = 0.0
    log: list[Event] = dataclasses.field(default_factory=list)
    replayed: dict[int, int] = dataclasses.field(default_factory=lambda: {FIRST: 0, SECOND: 0})
    history: History = dataclasses.field(default_factory=History)
    missed: dict[Operation, int] = dataclasses.field(default_factory=lambda: {Operation.READ: 0, Operation.BOUNDED: 0})

    def step(self, client: str, key: str, action: str, pause: float) -> None:
        self.now += pause
        if action == "replay":
            replica = self.affine(client)
            self.replayed[replica] = min(len(self.log), self.replayed[replica] + 2)
        elif action == "write":
            event = write(client, self.value(key, len(self.log)) + 1, at=self.now, key=key)
            self.log.append(event)
            self.history.events.append(event)
        else:
            self.read(client, key, Operation(action))
        self.now += 0.01

    def affine(self, client: str) -> int:
        return FIRST if client == "a" else SECOND

    def value(self, key: str, position: int) -> int:
        return sum(event.key == key for event in self.log[:position])

    def read(self, client: str, key: str, operation: Operation) -> None:
        port = self.affine(client)
        needed = [
            event
            for event in self.log
            if event.key == key
            and (event.client == client if operation is Operation.READ else event.ended < self.now - LAG)
        ]
        misses = any(event not in self.log[: self.replayed[port]] for event in needed)
        if misses and self.careful:
            port = PRIMARY
        self.missed[operation] += misses
        position = len(self.log) if port == PRIMARY else self.replayed[port]
        event = read(client, self.value(key, position), at=self.now, port=port, key=key, operation=operation)
        self.history.events.append(event)


STEPS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["k", "l"]),
        st.sampled_from(["write", "read", "bounded", "replay"]),
        st.sampled_from([0.0, 0.2, LAG]),
    ),
    max_size=60,
)


@given(STEPS)
def test_a_correct_router_has_no_violations(steps: list[tuple[typing.Any, ...]]) -> None:
    """It reads from the primary what its replica does not have."""
    model = Model(careful=True)
    for step in steps:
        model.step(*step)

    assert check(model.history, lag=LAG, grace=GRACE) == []


@given(STEPS)
def test_of_an_incorrect_router_exactly_the_wrong_reads_are_found(
    steps: list[tuple[typing.Any, ...]],
) -> None:
    """INVARIANT: no more and no fewer; a checker that cannot fail proves nothing."""
    model = Model(careful=False)
    for step in steps:
        model.step(*step)

    assert len(read_your_writes(model.history)) == model.missed[Operation.READ]
    assert len(bounded_staleness(model.history, lag=LAG)) == model.missed[Operation.BOUNDED]

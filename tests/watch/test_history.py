import pytest

from modern_di_replicas import Role, ServerState, Snapshot
from modern_di_replicas.observability import Ejected, Event, PrimaryChanged, Returned, SnapshotPublished, TokenReceived
from modern_di_replicas.watch.history import KEPT, History, sparkline


def published(role: Role = Role.STANDBY, lag: float | None = 0.0) -> SnapshotPublished:
    state = ServerState(name="a", up=True, role=role, lag_seconds=lag)
    return SnapshotPublished(snapshot=Snapshot(servers={"a": state}))


def test_a_sparkline_is_as_high_as_its_values() -> None:
    """An unknown value is a gap; a value above the scale is a full bar."""
    assert sparkline([0, 0.5, None, 1, 2], full=1) == "▁▅ ██"


def test_lags_are_sampled_and_the_oldest_are_forgotten() -> None:
    """The maximum determines the scale, but noise does not."""
    history = History(lambda: 0.0)
    history.sample()
    assert history.lags == {}
    history.on_event(published(lag=0.01))
    history.sample()
    assert history.scale == 0.1
    history.on_event(published(lag=3.0))
    for _ in range(KEPT):
        history.sample()
    assert list(history.lags["a"]) == [3.0] * KEPT
    assert history.scale == 3.0


@pytest.mark.parametrize(
    ("event", "words", "is_bad"),
    [
        (Ejected(server="a", by="probe"), "a was ejected (by a probe)", True),
        (Returned(server="a"), "a is used again", False),
        (PrimaryChanged(former="b", primary="a"), "the primary is a now; it was b", True),
        (published(Role.PRIMARY), "a is primary now", False),
        (published(Role.FENCED), "a is fenced now", True),
    ],
)
def test_each_change_is_a_line(event: Event, words: str, is_bad: bool) -> None:
    """Problems are marked."""
    history = History(lambda: 7.0)
    history.on_event(published())
    history.on_event(event)
    (line,) = history.lines
    assert (line.at, line.words, line.is_bad) == (7.0, words, is_bad)


def test_a_server_that_is_away_for_a_while_has_not_changed_its_role() -> None:
    """Its ejection is a separate line; events that the monitor does not report are ignored."""
    history = History(lambda: 0.0)
    for event in (
        published(),
        published(Role.UNKNOWN),
        published(),
        SnapshotPublished(snapshot=None),
        TokenReceived(outcome="accepted"),
    ):
        history.on_event(event)
    assert not history.lines
    assert history.snapshot is not None

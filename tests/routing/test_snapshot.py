import dataclasses

import hypothesis
import pytest
from hypothesis import strategies as st

from modern_di_replicas.routing.lag import LsnHistory
from modern_di_replicas.routing.snapshot import (
    Observation,
    Role,
    assemble,
    find_primary,
)


def seen(*, at: float = 0.0, in_recovery: bool = True, lsn: int = 0, timeline: int = 1, system: int = 7) -> Observation:
    return Observation(
        at=at, in_recovery=in_recovery, lsn=lsn, written=lsn, timeline=timeline, system=system, database="app"
    )


observations = st.builds(
    Observation,
    at=st.floats(0, 100),
    in_recovery=st.booleans(),
    lsn=st.integers(0, 1000),
    timeline=st.integers(1, 3),
    system=st.just(7),
    written=st.integers(0, 1000),
    database=st.just("app"),
)
servers = st.dictionaries(st.sampled_from("abcdef"), observations, max_size=6)


# Which server is the primary


@hypothesis.given(servers, st.sampled_from("abcdefx"), st.integers(0, 4))
def test_the_primary_is_never_on_an_older_timeline_than_another_server(
    observed: dict[str, Observation], current: str, timeline: int
) -> None:
    """INVARIANT: a server that missed a promotion is never written to, whatever it reports."""
    primary = find_primary(observed, current=current, timeline=timeline)

    if primary is not None:
        newest = max(timeline, *(one.timeline for one in observed.values()))
        assert not observed[primary].in_recovery
        assert observed[primary].timeline == newest


def test_of_two_names_of_one_server_the_current_one_stays() -> None:
    """For example an endpoint that follows the primary, and the primary itself: the primary has not moved."""
    observed = {"a": seen(in_recovery=False), "b": seen(in_recovery=False)}

    assert find_primary(observed, current="b", timeline=1) == "b"
    assert find_primary(observed, current=None, timeline=1) == "a"
    assert find_primary({"a": seen()}, current="a", timeline=1) is None


# The state of all servers


def test_a_snapshot_tells_the_roles_and_lags() -> None:
    """Each server with the state that the others imply."""
    history = LsnHistory()
    history.add(0.0, 100)
    history.add(1.0, 200)
    observed = {
        "primary": seen(at=1.0, in_recovery=False, lsn=200, timeline=2),
        "fresh": seen(at=1.1, lsn=200, timeline=2),
        "late": seen(at=1.1, lsn=150, timeline=2),
        "former": seen(at=1.1, in_recovery=False, lsn=500, timeline=1),
        "alias": seen(at=1.1, in_recovery=False, lsn=200, timeline=2),
        "left": seen(at=1.1, lsn=500, timeline=1),
        "stranger": seen(at=1.1, lsn=200, system=8),
    }

    states = assemble(
        [*observed, "down"], observed, history=history, primary="primary", timeline=2, lost_primary_at=None
    ).servers

    assert {name: state.role for name, state in states.items()} == {
        "primary": Role.PRIMARY,
        "fresh": Role.STANDBY,
        "late": Role.STANDBY,
        "former": Role.FENCED,
        "alias": Role.ALIAS,
        "left": Role.LEFT_BEHIND,
        "stranger": Role.FOREIGN,
        "down": Role.UNKNOWN,
    }
    assert (states["fresh"].lag_bytes, states["fresh"].lag_seconds) == (0, 0.0)
    assert states["late"].lag_bytes == 50
    assert states["late"].lag_seconds == pytest.approx(1.1)
    assert not states["down"].up


def test_without_a_primary_the_lag_is_unknown_and_the_snapshot_says_since_when() -> None:
    """A number would be a guess."""
    history = LsnHistory()
    history.add(0.0, 100)

    state = assemble(
        ["a"], {"a": seen(lsn=100)}, history=history, primary=None, timeline=1, lost_primary_at=5.0
    ).servers["a"]

    assert (state.lag_bytes, state.lag_seconds, state.lag_unknown_since) == (None, None, 5.0)


def test_a_server_ahead_of_the_newest_timeline_that_counts_is_not_used() -> None:
    """For example a clone of a server that is not promotable, and a standby of that clone."""
    observed = {"a": seen(in_recovery=False), "clone": seen(in_recovery=False, timeline=2), "b": seen(timeline=2)}
    snapshot = assemble(observed, observed, history=LsnHistory(), primary="a", timeline=1, lost_primary_at=None)
    roles = {name: state.role for name, state in snapshot.servers.items()}

    assert roles == {"a": Role.PRIMARY, "clone": Role.FENCED, "b": Role.LEFT_BEHIND}


@pytest.mark.parametrize(
    ("lsn", "behind", "expected"),
    [
        (50, 3.0, 3.0),  # the samples do not reach back that far
        (50, 0.2, 1.0),  # by its own clock it lags less than the samples prove
        (50, None, None),
        (0, 3.0, None),  # it does not report its position
        (150, 60.0, 0.5),  # the primary has written nothing for a minute, as the samples show
    ],
)
def test_right_after_a_start_a_standby_reports_its_own_lag(
    lsn: int, behind: float | None, expected: float | None
) -> None:
    """After a deploy, a replica that is behind but within `max_lag` serves at once."""
    history = LsnHistory()
    history.add(10.0, 100)
    history.add(10.5, 150)
    history.add(11.0, 200)
    observed = {
        "primary": seen(at=11.0, in_recovery=False, lsn=200),
        "late": dataclasses.replace(seen(at=11.0, lsn=lsn), behind=behind),
    }
    states = assemble(observed, observed, history=history, primary="primary", timeline=1, lost_primary_at=None).servers
    assert states["late"].lag_seconds == expected

import dataclasses
import typing

import hypothesis
import pytest
from hypothesis import strategies as st

from modern_di_replicas.routing.eligibility import eligible
from modern_di_replicas.routing.snapshot import (
    LsnHistory,
    Observation,
    Role,
    ServerState,
    Snapshot,
    assemble,
    find_primary,
)


def seen(*, at: float = 0.0, in_recovery: bool = True, lsn: int = 0, timeline: int = 1, system: int = 7) -> Observation:
    return Observation(
        at=at, in_recovery=in_recovery, lsn=lsn, written=lsn, timeline=timeline, system=system, database=5
    )


observations = st.builds(
    Observation,
    at=st.floats(0, 100),
    in_recovery=st.booleans(),
    lsn=st.integers(0, 1000),
    timeline=st.integers(1, 3),
    system=st.just(7),
    written=st.integers(0, 1000),
    database=st.just(5),
)
servers = st.dictionaries(st.sampled_from("abcdef"), observations, max_size=6)


# Who is the primary


@hypothesis.given(servers, st.sampled_from("abcdefx"), st.integers(0, 4))
def test_the_primary_is_never_on_an_older_timeline_than_anybody(
    observed: dict[str, Observation], current: str, timeline: int
) -> None:
    """INVARIANT: a server that missed a promotion is never written to, whatever it believes."""
    primary = find_primary(observed, current=current, timeline=timeline)

    if primary is not None:
        newest = max(timeline, *(one.timeline for one in observed.values()))
        assert not observed[primary].in_recovery
        assert observed[primary].timeline == newest


def test_of_two_names_for_one_server_the_current_one_stays() -> None:
    """An endpoint that follows the primary, and the primary itself: nothing has moved."""
    observed = {"a": seen(in_recovery=False), "b": seen(in_recovery=False)}

    assert find_primary(observed, current="b", timeline=1) == "b"
    assert find_primary(observed, current=None, timeline=1) == "a"
    assert find_primary({"a": seen()}, current="a", timeline=1) is None


# Lag


def test_lag_is_how_long_ago_the_primary_was_there() -> None:
    """Seconds of one clock, from the samples of the primary."""
    history = LsnHistory()
    for second, lsn in enumerate([100, 200, 300, 400]):
        history.add(float(second), lsn)

    assert history.lag_seconds(3.5, 400) == 0.0
    assert history.lag_seconds(3.5, 350) == 1.5
    assert history.lag_seconds(3.5, 100) == 3.5
    assert history.lag_seconds(3.5, 99) is None
    assert history.lag_seconds(1.5, 200) == 0.0, "what the primary did later is no lag of then"


def test_an_idle_primary_makes_no_lag() -> None:
    """INVARIANT: nothing written, nothing missing; a lag that grows with silence would empty the rotation at night."""
    history = LsnHistory()
    for second in range(1000):
        history.add(float(second), 100)

    assert history.lag_seconds(999.0, 100) == 0.0
    history.add(1000.0, 200)
    assert history.lag_seconds(1000.5, 100) == 1.5, "the silence before does not count"


def test_a_history_forgets_precision_before_it_forgets_time() -> None:
    """Its size is bounded; an hour-old lag is still told, to a few seconds."""
    history = LsnHistory(capacity=16)
    for second in range(1000):
        history.add(float(second), second)

    lag = history.lag_seconds(999.0, 0)
    assert lag == 999.0
    assert history.last == (999.0, 999)
    history.clear()
    assert history.last is None
    assert history.lag_seconds(1.0, 1) is None


@hypothesis.given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.integers(0, 2000), st.integers(4, 64))
def test_lag_is_never_understated(steps: list[int], position: int, capacity: int) -> None:
    """INVARIANT: what is told is at least how long ago the primary passed that position, by its own samples."""
    history, samples, lsn = LsnHistory(capacity=capacity), [], 0
    for at, step in enumerate(steps):
        lsn += step
        samples.append((float(at), lsn))
        history.add(float(at), lsn)
    now = float(len(steps))

    lag = history.lag_seconds(now, position)

    passed = [at for at, reached in samples if reached > position]
    if lag is not None:
        assert lag >= (now - passed[0] if passed else 0.0)


# What is known of all


def test_a_snapshot_tells_the_roles_and_lags() -> None:
    """Each server as it is for the others."""
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


def test_without_a_primary_the_lag_is_not_known_and_says_since_when() -> None:
    """A number would be a guess."""
    history = LsnHistory()
    history.add(0.0, 100)

    state = assemble(
        ["a"], {"a": seen(lsn=100)}, history=history, primary=None, timeline=1, lost_primary_at=5.0
    ).servers["a"]

    assert (state.lag_bytes, state.lag_seconds, state.lag_unknown_since) == (None, None, 5.0)


# Who may serve a read


@dataclasses.dataclass(frozen=True)
class Server:
    name: str
    groups: frozenset[str]
    max_lag: float | None


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[Server], Snapshot]:
    fleet = [
        Server(name, frozenset(draw(st.sets(st.sampled_from(["default", "analytics"]), min_size=1))), lag)
        for name, lag in draw(st.dictionaries(st.sampled_from("abcdef"), st.none() | st.floats(0.1, 10))).items()
    ]
    lag = st.none() | st.floats(0, 20)
    states = {
        server.name: ServerState(
            name=server.name,
            up=draw(st.booleans()),
            role=draw(st.sampled_from(Role)),
            lag_seconds=draw(lag),
            lag_unknown_since=draw(lag),
        )
        for server in fleet
    }
    return fleet, Snapshot(servers=states)


@hypothesis.given(fleets())
def test_nobody_serves_who_is_down_too_far_behind_or_of_another_group(
    given: tuple[list[Server], Snapshot],
) -> None:
    """INVARIANT: never an unhealthy, too stale or wrong-group server; nor one that may have been written to alone."""
    fleet, snapshot = given

    for group, serving in eligible(fleet, snapshot).items():
        for server in serving:
            state = snapshot.servers[server.name]
            assert group in server.groups
            assert state.role in (Role.STANDBY, Role.ALIAS)
            if state.role is Role.STANDBY:
                assert state.up
                known = state.lag_unknown_since is None
                if server.max_lag is not None and known:
                    assert state.lag_seconds is not None
                    assert state.lag_seconds <= server.max_lag


@hypothesis.given(fleets())
def test_every_standby_that_may_serve_does(given: tuple[list[Server], Snapshot]) -> None:
    """A rule that leaves out too many would be safe, and useless."""
    fleet, snapshot = given
    serving = eligible(fleet, snapshot)

    for server in fleet:
        state = snapshot.servers[server.name]
        if state.up and state.role is Role.STANDBY and server.max_lag is None:
            assert all(server in serving[group] for group in server.groups)


def test_the_primary_by_another_name_serves_only_where_no_standby_does() -> None:
    """It was declared to be read from; a standby is what it was declared for."""
    fleet = [Server("alias", frozenset({"default"}), None), Server("standby", frozenset({"default"}), None)]
    alias = ServerState(name="alias", up=True, role=Role.ALIAS)

    def serving(standby: ServerState) -> typing.Any:
        return eligible(fleet, Snapshot(servers={"alias": alias, "standby": standby}))["default"]

    assert serving(ServerState(name="standby", up=True, role=Role.STANDBY)) == (fleet[1],)
    assert serving(ServerState(name="standby")) == (fleet[0],)

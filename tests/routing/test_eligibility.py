import dataclasses
import typing

import hypothesis
from hypothesis import strategies as st

from modern_di_replicas.routing.eligibility import eligible
from modern_di_replicas.routing.snapshot import Role, ServerState, Snapshot


@dataclasses.dataclass(frozen=True)
class Server:
    name: str
    groups: frozenset[str]
    max_lag: float | None


@st.composite
def topologies(draw: st.DrawFn) -> tuple[list[Server], Snapshot]:
    topology = [
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
        for server in topology
    }
    return topology, Snapshot(servers=states)


@hypothesis.given(topologies())
def test_a_server_that_is_down_too_far_behind_or_of_another_group_does_not_serve(
    given: tuple[list[Server], Snapshot],
) -> None:
    """INVARIANT: never an unhealthy, stale or wrong-group server, nor one with a diverged history."""
    topology, snapshot = given

    for group, serving in eligible(topology, snapshot).items():
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


@hypothesis.given(topologies())
def test_every_standby_that_may_serve_does(given: tuple[list[Server], Snapshot]) -> None:
    """A rule that excludes too many servers would be safe, and useless."""
    topology, snapshot = given
    serving = eligible(topology, snapshot)

    for server in topology:
        state = snapshot.servers[server.name]
        if state.up and state.role is Role.STANDBY and server.max_lag is None:
            assert all(server in serving[group] for group in server.groups)


def test_the_primary_by_another_name_serves_only_where_no_standby_does() -> None:
    """It was declared as a replica, but reads should use a standby if there is one."""
    topology = [Server("alias", frozenset({"default"}), None), Server("standby", frozenset({"default"}), None)]
    alias = ServerState(name="alias", up=True, role=Role.ALIAS)

    def serving(standby: ServerState) -> typing.Any:
        return eligible(topology, Snapshot(servers={"alias": alias, "standby": standby}))["default"]

    assert serving(ServerState(name="standby", up=True, role=Role.STANDBY)) == (topology[1],)
    assert serving(ServerState(name="standby")) == (topology[0],)

"""Another cluster or a restored backup at the known addresses: which servers are followed, and which are not."""

import hypothesis
from hypothesis import strategies as st

from modern_di_replicas.routing.snapshot import Observation
from modern_di_replicas.routing.succession import History, find_successor


OLD, NEW, OTHER = 7, 8, 9
KNOWN = History(system=OLD, timeline=2)


def seen(*, primary: bool = False, timeline: int = 1, system: int = NEW) -> Observation:
    return Observation(
        at=0, in_recovery=not primary, lsn=9, written=9, timeline=timeline, system=system, database="app"
    )


def successor(observed: dict[str, Observation], *, newest: dict[str, int] | None = None) -> str | None:
    return find_successor(observed, history=KNOWN, declared="a", newest=newest or {})


observations = st.builds(
    lambda primary, timeline, system: seen(primary=primary, timeline=timeline, system=system),
    st.booleans(),
    st.integers(1, 3),
    st.sampled_from([OLD, NEW, OTHER]),
)
servers = st.dictionaries(st.sampled_from("abcd"), observations, max_size=4)
timelines = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 2), max_size=4)


@hypothesis.given(servers, timelines)
def test_another_cluster_is_followed_only_at_the_declared_address_or_if_no_server_is_left(
    observed: dict[str, Observation], newest: dict[str, int]
) -> None:
    """INVARIANT: a wrong address of a replica never redirects the writes of running servers."""
    found = successor(observed, newest=newest)
    if found is None or observed[found].system == OLD:
        return
    assert not observed[found].in_recovery
    of_declared = "a" in observed and observed["a"].system == observed[found].system
    assert of_declared or not any(one.system == OLD for one in observed.values())


@hypothesis.given(servers, timelines)
def test_an_older_timeline_is_only_followed_as_a_restored_backup(
    observed: dict[str, Observation], newest: dict[str, int]
) -> None:
    """INVARIANT: a former primary that missed a promotion gets no write, however long the new one is silent."""
    found = successor(observed, newest=newest)
    if found is None or observed[found].system != OLD:
        return
    ours = {name: one for name, one in observed.items() if one.system == OLD}
    assert all(one.timeline < KNOWN.timeline for one in ours.values())
    assert any(newest.get(name) == KNOWN.timeline for name in ours), "no server has gone back"


def test_another_cluster_at_the_declared_address_is_followed_though_old_standbys_live() -> None:
    """Only the primary was replaced; the replicas follow later."""
    observed = {"a": seen(primary=True), "b": seen(system=OLD, timeline=2)}
    assert successor(observed) == "a"
    assert successor({"a": seen(), "b": seen(system=OLD, timeline=2), "c": seen(primary=True)}) == "c"
    assert successor({"a": seen(), "b": seen(system=OLD, timeline=2)}) is None


def test_at_other_addresses_another_cluster_is_followed_only_if_no_server_is_left() -> None:
    """It may be a wrong address; of two other clusters, neither is known to be right."""
    assert successor({"b": seen(primary=True)}) == "b"
    assert successor({"b": seen(primary=True), "c": seen(system=OLD)}) is None
    assert successor({"b": seen(primary=True), "c": seen(primary=True, system=OTHER)}) is None
    assert successor({}) is None


def test_a_former_primary_is_not_a_restored_backup() -> None:
    """It was never on the newest timeline; a restored server was, and no longer is."""
    former = {"a": seen(primary=True, system=OLD)}
    assert successor(former, newest={"a": 1, "b": 2}) is None
    assert successor(former, newest={"a": 2}) == "a"
    assert successor({**former, "b": seen(system=OLD)}, newest={"a": 1, "b": 2}) == "a"
    assert successor({**former, "c": seen(system=OLD, timeline=2)}, newest={"a": 2}) is None


def test_a_replica_that_is_not_promotable_is_not_followed() -> None:
    """It may be a clone, or a server of another cluster."""
    observed = {"b": seen(primary=True)}
    assert find_successor(observed, history=KNOWN, declared="a", newest={}, not_promotable={"b"}) is None

from modern_di_replicas.routing.changes import LastPrimary
from modern_di_replicas.routing.snapshot import ServerState, Snapshot


def snapshot(primary: str | None, timeline: int = 1) -> Snapshot:
    return Snapshot(servers={name: ServerState(name=name, timeline=timeline) for name in ("a", "b")}, primary=primary)


def test_the_first_primary_is_not_a_change() -> None:
    """No primary was known before."""
    assert LastPrimary().follow(snapshot("a")) is None


def test_another_primary_is_a_change_also_after_a_time_without_one() -> None:
    """A failover takes a while."""
    last = LastPrimary()
    last.follow(snapshot("a"))
    assert last.follow(snapshot(None)) is None
    assert last.follow(snapshot("a")) is None
    assert last.follow(snapshot(None)) is None
    assert last.follow(snapshot("b", timeline=2)) == "a"
    assert last.follow(snapshot("b", timeline=2)) is None


def test_another_timeline_at_the_same_address_is_a_change() -> None:
    """Behind a virtual address the name stays the same."""
    last = LastPrimary()
    last.follow(snapshot("a"))
    assert last.follow(snapshot("a", timeline=2)) == "a"

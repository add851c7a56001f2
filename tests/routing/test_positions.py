import dataclasses
import math

import hypothesis
from hypothesis import strategies as st

from modern_di_replicas.consistency.token import ConsistencyToken, identify
from modern_di_replicas.routing.positions import Freshness, Positions
from modern_di_replicas.routing.snapshot import Observation, Role, ServerState, Snapshot


def said(
    lsn: int, *, at: float = 0.0, timeline: int = 1, written: int | None = None, in_recovery: bool = False
) -> Observation:
    return Observation(
        at=at,
        in_recovery=in_recovery,
        lsn=lsn,
        written=lsn if written is None else written,
        timeline=timeline,
        system=7,
        database="app",
    )


def after(lsn: int, *, timeline: int = 1) -> Freshness:
    return Freshness(after=(token(lsn, timeline=timeline),))


def token(lsn: int, *, timeline: int = 1) -> ConsistencyToken:
    return ConsistencyToken(lsn=lsn, timeline=timeline, database=identify(7, "app"), issued_at=0)


def following(*leaders: Observation) -> Positions:
    positions = Positions()
    for leader in leaders:
        positions.follow(leader)
    return positions


def test_nothing_is_known_before_the_primary_was_seen() -> None:
    """A read with a freshness requirement is not sent to a replica then."""
    positions = Positions()

    assert positions.required(after(1), now=0.0) is None
    assert positions.required(Freshness(max_age=1.0), now=0.0) is None
    assert not positions.has_written(token(1))
    assert positions.answered_at is None


def test_standbys_on_one_timeline_have_known_positions_before_a_primary_was_seen() -> None:
    """INVARIANT: the surviving part of an older timeline is unknown, and standbys on two timelines prove nothing."""
    positions = Positions()
    first, second = said(90, timeline=2, in_recovery=True), said(100, timeline=2, in_recovery=True)

    positions.assume([first, second])
    assert positions.required(after(95, timeline=2), now=0.0) == 95
    assert positions.required(after(1, timeline=1), now=0.0) is None
    assert positions.required(after(1, timeline=3), now=0.0) is None
    positions.assume([first, dataclasses.replace(second, timeline=3)])
    assert positions.required(after(95, timeline=2), now=0.0) is None
    positions.assume([first])
    positions.follow(said(200, timeline=2))
    positions.assume([dataclasses.replace(second, timeline=3)])
    assert positions.required(after(500, timeline=1), now=0.0) == 200
    assert positions.required(after(95, timeline=2), now=0.0) == 95


def test_a_token_requires_its_own_lsn() -> None:
    """On its own timeline; a position that the primary has not written is not required."""
    positions = following(said(100, written=120))

    assert positions.required(after(90), now=0.0) == 90
    assert positions.required(after(500), now=0.0) == 500
    assert [positions.has_written(token(lsn)) for lsn in (90, 120, 121)] == [True, True, False]
    assert positions.database == identify(7, "app")


def test_the_position_required_by_a_token_of_another_database_is_unknown() -> None:
    """Its LSN belongs to another log."""
    positions = following(said(100))
    foreign = dataclasses.replace(token(1), database=identify(8, "app"))

    assert positions.required(Freshness(after=(foreign,)), now=0.0) is None
    assert not positions.has_written(foreign)


def test_a_token_of_an_older_timeline_requires_only_surviving_writes() -> None:
    """INVARIANT: an LSN lost in a promotion is never reached, so nothing waits for it."""
    positions = following(said(100), said(60, timeline=2), said(80, timeline=2))

    assert positions.required(after(50), now=0.0) == 50
    assert positions.required(after(100), now=0.0) == 60
    assert positions.has_written(token(100))
    assert positions.required(after(10, timeline=3), now=0.0) is None
    assert not positions.has_written(token(10, timeline=3))


def test_a_promotion_discards_the_positions_of_the_servers() -> None:
    """Their positions were on the former timeline."""
    positions = following(said(100, at=1.0))
    positions.note_standby("a", said(90, in_recovery=True))
    positions.follow(said(60, at=2.0, timeline=2))

    assert positions.reached == {}
    assert positions.written == 60
    assert positions.required(Freshness(max_age=5.0), now=3.0) == 60


def test_a_standbys_received_position_was_written_by_the_primary() -> None:
    """It saves a question to the primary."""
    positions = following(said(100))
    positions.note_standby("a", said(90, written=300, in_recovery=True))

    assert positions.reached == {"a": 90}
    assert positions.has_written(token(300))


def test_only_standbys_are_read_from_and_the_primary_by_another_name_has_everything() -> None:
    """A fenced server, or one left behind, has a different history."""
    states = {
        role.value: ServerState(name=role.value, up=True, role=role, lsn=50)
        for role in (Role.PRIMARY, Role.STANDBY, Role.ALIAS, Role.FENCED, Role.LEFT_BEHIND, Role.FOREIGN)
    }
    positions = following(said(100))
    positions.publish(Snapshot(servers=states, primary="primary"))

    assert positions.reached == {"standby": 50, "alias": math.inf}


@hypothesis.given(
    st.lists(st.tuples(st.floats(0.01, 10), st.integers(0, 100)), min_size=1, max_size=30),
    st.floats(0, 50),
    st.floats(0.01, 50),
)
def test_a_bounded_read_includes_everything_written_before_its_bound(
    steps: list[tuple[float, int]], age: float, waited: float
) -> None:
    """INVARIANT: a replica at the required position lacks nothing written longer ago than the bound."""
    samples, at, lsn = [], 0.0, 0
    for pause, grown in steps:
        at, lsn = at + pause, lsn + grown
        samples.append((at, lsn))
    positions = following(*(said(lsn, at=at) for at, lsn in samples))
    now = at + waited

    required = positions.required(Freshness(max_age=age), now=now)

    written_before = max((lsn for at, lsn in samples if at <= now - age), default=0)
    if required is None:
        assert at < now - age
    else:
        assert required >= written_before


def test_a_read_may_ask_for_both() -> None:
    """The stricter requirement counts."""
    positions = following(said(10, at=1.0), said(20, at=2.0), said(30, at=3.0))
    both = Freshness(after=(token(25), token(12)), max_age=10.0)

    assert positions.required(both, now=5.0) == 25
    assert positions.required(dataclasses.replace(both, max_age=2.5), now=5.0) == 30
    assert str(both) == "the last 10 s"
    assert str(after(1)) == "its client's last write"


def test_an_answer_that_arrives_late_does_not_set_the_history_back() -> None:
    """The monitor's question and one on demand may be answered in any order."""
    positions = following(said(100, at=2.0), said(90, at=1.0, written=100))

    assert positions.answered_at == 2.0
    assert positions.history.last == (2.0, 100)


def test_forgetting_before_any_server_has_answered_makes_no_database_a_former_one() -> None:
    """Nothing was known before."""
    positions = Positions()
    positions.forget()

    assert positions.former == set()
    assert positions.required(after(1), now=0.0) is None

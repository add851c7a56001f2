"""Whether the replicas follow, and can continue to follow."""

import typing

import pytest

from modern_di_replicas.doctor.checks import replication
from modern_di_replicas.doctor.facts import Slot
from tests.doctor.made_up import examination, primary, replica


DELAYED = {"recovery_min_apply_delay": "2000"}


@pytest.mark.parametrize(
    ("facts", "kinds"),
    [
        ({}, []),
        ({"behind": None}, []),
        ({"behind": 5, "waited": 1.0}, ["lag"]),
        ({"behind": 5, "settings": DELAYED}, []),
        ({"behind": 5, "replay_paused": True}, ["replay-paused"]),
    ],
)
def test_a_replica_that_does_not_follow_is_found(facts: dict[str, typing.Any], kinds: list[str]) -> None:
    """With the reason, if known: a pause, or an intended delay, which has a separate finding."""
    findings = replication.check_lag(examination(primary(), replica(**facts)))
    assert [finding.kind for finding in findings] == kinds


@pytest.mark.parametrize(("max_lag", "never"), [(None, False), (10.0, False), (2.0, True)])
def test_a_delay_on_purpose_is_held_against_the_limit(max_lag: float | None, never: bool) -> None:
    """A delay at the limit excludes the replica from all reads."""
    (finding,) = replication.check_apply_delay(examination(primary(), replica(settings=DELAYED, max_lag=max_lag)))
    assert "is delayed by 2 s on purpose" in finding.message
    assert ("it never serves" in finding.message) is never
    assert list(replication.check_apply_delay(examination())) == []


@pytest.mark.parametrize(
    ("active", "status", "in_recovery", "words"),
    [
        (True, "reserved", False, []),
        (False, "reserved", False, ["'s' is inactive, and keeps 3 MB"]),
        (False, "reserved", True, []),
        (True, "lost", True, ["'s' has lost WAL (lost), and keeps 3 MB"]),
        (True, "unreserved", False, ["'s' has lost WAL (unreserved), and keeps 3 MB"]),
    ],
)
def test_a_slot_that_keeps_wal_for_no_replica_is_found(
    active: bool, status: str, in_recovery: bool, words: list[str]
) -> None:
    """A slot on a standby may be kept for a promotion, so there only a lost slot is reported."""
    slot = Slot(name="s", active=active, wal_status=status, retained=3 * 2**20)
    server = primary(in_recovery=in_recovery, slots=[slot])
    findings = replication.check_slots(examination(server, replica()))
    assert [finding.message.partition("slot ")[2] for finding in findings] == words


@pytest.mark.parametrize(("kept", "found"), [("64", ["no-slot"]), (str(replication.KEPT_WAL), [])])
def test_a_replica_without_a_slot_is_found_unless_much_wal_is_kept(kept: str, found: list[str]) -> None:
    """The primary may remove WAL that the replica still needs."""
    without = replica(uses_slot=False, settings={"wal_keep_size": kept})
    findings = replication.check_slots(examination(primary(), without))
    assert [finding.kind for finding in findings] == found


@pytest.mark.parametrize(
    ("feedback", "delay", "max_lag", "found"),
    [
        ("on", "5000", 10.0, []),
        ("off", "5000", 10.0, [("hot-standby-feedback", "advice")]),
        ("off", "60000", 10.0, [("hot-standby-feedback", "advice"), ("standby-delay", "advice")]),
        ("off", "60000", None, [("hot-standby-feedback", "advice")]),
        ("on", "60000", 10.0, []),
        ("on", "-1", None, [("standby-delay", "problem")]),
    ],
)
def test_queries_that_hold_up_the_replay_are_found(
    feedback: str, delay: str, max_lag: float | None, found: list[tuple[str, str]]
) -> None:
    """Without a limit it is a problem; above max_lag, advice, unless there are few conflicts."""
    settings = {"hot_standby_feedback": feedback, "max_standby_streaming_delay": delay}
    findings = replication.check_conflicts(examination(primary(), replica(settings=settings, max_lag=max_lag)))
    assert [(finding.kind, finding.severity) for finding in findings] == found


def test_a_server_without_known_settings_has_no_findings() -> None:
    """Nor is a server that is not a standby."""
    for server in (replica(settings={}), replica(in_recovery=False, settings={"hot_standby_feedback": "off"})):
        assert list(replication.check_conflicts(examination(primary(), server))) == []

"""Conclusions from the answers of all servers; the answers are synthetic."""

import logging
import types
import typing

import pytest

from modern_di_replicas import PrimaryEngine, Replica, ReplicaEngine, Role
from modern_di_replicas.cluster.monitoring import conclusions
from modern_di_replicas.cluster.monitoring.conclusions import Conclusions
from modern_di_replicas.routing.snapshot import Observation
from tests.unconnected import URL, engines


PRIMARY = URL.format("db-1").rpartition("@")[2].partition("/")[0] + ":5432"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(conclusions, "time", types.SimpleNamespace(monotonic=clock))
    return clock


class Drawn(Conclusions):
    """Draws conclusions from synthetic answers."""

    def __init__(self, primary: PrimaryEngine, replica: ReplicaEngine, clock: Clock) -> None:
        super().__init__(replica.topology, replica.settings)
        self.primary, self.replica, self.clock = primary, replica, clock
        self.asked = 0

    def _probe_all_now(self) -> None:
        self.asked += 1

    def hear(self, **answers: dict[str, typing.Any]) -> dict[str, Role]:
        """Process the answers of all servers that are up, by name, and return the role of each."""
        names = {"db_1": PRIMARY, "db_2": "db-2", "db_3": "db-3"}
        self._observed = {names[name]: self._observation(**answer) for name, answer in answers.items()}
        self._conclude()
        assert self.replica.snapshot is not None
        return {name: state.role for name, state in self.replica.snapshot.servers.items()}

    def forget(self) -> None:
        self._publish_unknown()

    def _observation(self, **answer: typing.Any) -> Observation:
        usual = {"at": self.clock(), "lsn": 100, "written": 100, "timeline": 1, "system": 7, "database": "shop"}
        return Observation(**{**usual, **answer})


def drawn(clock: Clock, *replicas: str | Replica) -> Drawn:
    return Drawn(*engines(*(replicas or ("db-2", "db-3"))), clock)


LEADS: dict[str, typing.Any] = {"in_recovery": False}
FOLLOWS: dict[str, typing.Any] = {"in_recovery": True}


def test_the_server_that_accepts_writes_is_the_primary(clock: Clock) -> None:
    """The others are its standbys; a server that does not answer is unknown."""
    monitor = drawn(clock)
    roles = monitor.hear(db_1=LEADS, db_2=FOLLOWS)
    assert roles == {PRIMARY: Role.PRIMARY, "db-2": Role.STANDBY, "db-3": Role.UNKNOWN}
    assert monitor.replica.topology.leader == PRIMARY
    monitor.forget()
    assert monitor.replica.topology.leader is None


def test_writes_follow_a_promotion(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """When the former primary returns as a primary, it is fenced, because it is on an older timeline."""
    monitor = drawn(clock)
    monitor.hear(db_1=LEADS, db_2=FOLLOWS, db_3=FOLLOWS)
    monitor.hear(db_2=FOLLOWS, db_3=FOLLOWS)
    roles = monitor.hear(db_2={**LEADS, "timeline": 2}, db_3={**FOLLOWS, "timeline": 2})
    assert (roles["db-2"], roles["db-3"]) == (Role.PRIMARY, Role.STANDBY)
    assert f"The primary is db-2 now; it was {PRIMARY}. Writes follow." in caplog.messages
    roles = monitor.hear(db_1=LEADS, db_2={**LEADS, "timeline": 2}, db_3=FOLLOWS)
    assert (roles[PRIMARY], roles["db-3"]) == (Role.FENCED, Role.LEFT_BEHIND)
    assert not monitor.primary.is_fenced


def test_a_primary_that_others_have_left_is_fenced_at_once(clock: Clock) -> None:
    """INVARIANT: once a newer timeline is seen, nothing is written to the old primary.

    This holds even if its successor is unknown. All servers are then probed at once to find it.
    """
    monitor = drawn(clock)
    monitor.hear(db_1=LEADS, db_2=FOLLOWS, db_3=FOLLOWS)
    monitor.hear(db_1=LEADS, db_2=FOLLOWS, db_3={**FOLLOWS, "timeline": 2})
    assert monitor.replica.topology.has_lost_primary
    assert monitor.primary.is_fenced
    assert monitor.asked == 1
    monitor.hear(db_1=LEADS, db_2={**LEADS, "timeline": 2}, db_3={**FOLLOWS, "timeline": 2})
    assert monitor.replica.topology.leader == "db-2"
    assert not monitor.primary.is_fenced


def test_a_server_that_is_not_promotable_is_not_followed(clock: Clock) -> None:
    """Its timeline is ignored as well."""
    monitor = drawn(clock, Replica(URL.format("db-2"), "db-2", promotable=False))
    monitor.hear(db_1=LEADS, db_2=FOLLOWS)
    roles = monitor.hear(db_1=LEADS, db_2={**LEADS, "timeline": 2})
    assert roles == {PRIMARY: Role.PRIMARY, "db-2": Role.FENCED}
    monitor.hear(db_2={**LEADS, "timeline": 2})
    assert monitor.replica.topology.has_lost_primary


def test_another_cluster_at_the_same_addresses_is_accepted_after_a_while(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Only after a delay, because a restarting primary is silent too. The state of the former cluster is discarded."""
    monitor = drawn(clock)
    monitor.hear(db_1=LEADS, db_2=FOLLOWS)
    monitor.hear(db_2=FOLLOWS)
    another: dict[str, typing.Any] = {**LEADS, "system": 8}
    settings = monitor.replica.settings
    clock.now += settings.probe_timeout + 2 * settings.probe_interval - 0.01
    assert monitor.hear(db_1=another, db_2=FOLLOWS)[PRIMARY] is Role.FOREIGN
    clock.now += 0.02
    assert monitor.hear(db_1=another, db_2=FOLLOWS) == {
        PRIMARY: Role.PRIMARY,
        "db-2": Role.FOREIGN,
        "db-3": Role.UNKNOWN,
    }
    assert any("has another PostgreSQL cluster" in message for message in caplog.messages)


def test_a_backup_that_is_restored_on_the_same_timeline_leaves_its_standbys_behind(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """They have rows that the primary does not have, until they are rebuilt."""
    caplog.set_level(logging.WARNING)
    monitor = drawn(clock)
    monitor.hear(db_1=LEADS, db_2=FOLLOWS, db_3=FOLLOWS)
    clock.now += 1
    roles = monitor.hear(db_1={**LEADS, "lsn": 50, "written": 50}, db_2=FOLLOWS, db_3={**FOLLOWS, "lsn": 40})
    assert (roles["db-2"], roles["db-3"]) == (Role.LEFT_BEHIND, Role.STANDBY)
    assert any("a backup was restored" in message and "rebuilt: db-2" in message for message in caplog.messages)
    clock.now += 1
    rebuilt = {**FOLLOWS, "lsn": 50}
    assert monitor.hear(db_1={**LEADS, "lsn": 60, "written": 60}, db_2=rebuilt)["db-2"] is Role.STANDBY

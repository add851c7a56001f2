"""Events about statements that are run again."""

import types
import typing

import pytest

from modern_di_replicas import Cause, Decision
from modern_di_replicas.observability import ReRun
from modern_di_replicas.observability.emission import Hooks
from modern_di_replicas.routing.decision import on_primary, on_replica
from modern_di_replicas.session.leaving import LeavingSession
from modern_di_replicas.session.re_run import reporting
from tests.observability.recorder import Recorder


LOST = ConnectionResetError("gone")


def session(decision: Decision, *hooks: Recorder) -> LeavingSession:
    """Return the attributes of a session that are read."""
    made = types.SimpleNamespace(hooks=Hooks.of(hooks), decision=decision, endpoint="shop.show")
    return typing.cast(LeavingSession, made)


@pytest.mark.parametrize(
    ("decision", "again_on", "cause"),
    [
        (on_primary(Cause.REPLICA_FAILED, "down"), "primary", Cause.REPLICA_FAILED),
        (on_primary(Cause.WROTE, "a write"), "primary", Cause.WROTE),
        (on_replica("db-3", "GET"), "db-3", Cause.REPLICA_FAILED),
    ],
)
def test_the_event_says_where_it_ran_and_why(decision: Decision, again_on: str, cause: Cause) -> None:
    """On another replica, or on a new connection to the same one, because of a failure."""
    recorder = Recorder()
    run = reporting(lambda *args, **options: (args, options), session(decision, recorder), server="db-2", error=LOST)
    assert run("SELECT 1", a=1) == (("SELECT 1",), {"a": 1})
    (event,) = recorder.of(ReRun)
    assert (event.server, event.again_on, event.cause, event.error) == ("db-2", again_on, cause, "ConnectionResetError")
    assert (event.succeeded, event.endpoint) == (True, "shop.show")
    assert event.seconds >= 0


def test_a_second_failure_is_reported_too() -> None:
    """Its error is raised in the application."""

    def fail() -> None:
        raise LookupError

    recorder = Recorder()
    with pytest.raises(LookupError):
        reporting(fail, session(on_replica("db-2", "GET"), recorder), server="db-2", error=LOST)()
    assert [event.succeeded for event in recorder.of(ReRun)] == [False]


def test_without_hooks_the_call_is_direct() -> None:
    """It costs nothing."""
    assert reporting(max, session(on_replica("db-2", "GET")), server="db-2", error=LOST) is max

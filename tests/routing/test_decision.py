import pytest

from modern_di_replicas.routing.decision import PRIMARY, Cause, Decision, decision_of, on_primary, on_replica


class Engine:
    """An object with a decision, like our engines."""

    decision = on_replica("db-2:5432", "GET")


def test_an_engine_carries_its_decision() -> None:
    """The reason is never reconstructed later."""
    assert decision_of(Engine()) == Decision(server="db-2:5432", cause=Cause.REPLICA, reason="GET")


@pytest.mark.parametrize("stand_in", [object(), type("Other", (), {"decision": "yes"})()])
def test_an_engine_without_a_decision_was_chosen_by_the_application(stand_in: object) -> None:
    """Even if it has an attribute of that name."""
    assert decision_of(stand_in) == on_primary(Cause.CHOSEN, "chosen by the application")
    assert decision_of(stand_in).server == PRIMARY


def test_decisions_for_a_replica_are_shared() -> None:
    """Each request needs one, and there are only a few different ones."""
    assert on_replica("db-2:5432", "GET") is on_replica("db-2:5432", "GET")

"""The engine of a unit of work."""

import typing

import pytest
from sqlalchemy import create_engine

from modern_di_replicas import Cause, Intent
from modern_di_replicas.cluster.engines.choose import choose
from modern_di_replicas.cluster.engines.either import AnyEngine, PerUnitOfWork
from modern_di_replicas.observability import Decided
from modern_di_replicas.observability.request import DECISION, decisions_in
from tests.observability.recorder import Recorder
from tests.unconnected import engines


OTHER = create_engine("sqlite://")


@pytest.mark.parametrize(
    ("intent", "server", "cause"),
    [(Intent.write(), "primary", Cause.WRITE), (Intent.read(), "db-2", Cause.REPLICA)],
)
def test_the_decision_is_on_the_engine_in_an_event_and_in_the_request(
    intent: Intent, server: str, cause: Cause
) -> None:
    """The engine, the hooks and the state of the request have the same decision."""
    recorder, state = Recorder(), dict[str, typing.Any]()
    primary, replica = engines("db-2", hooks=[recorder])
    with decisions_in(state):
        chosen = choose(intent, primary, replica)
    (event,) = recorder.of(Decided)
    assert (chosen.decision.server, chosen.decision.cause) == (server, cause)
    assert chosen.decision == event.decision == state[DECISION]


def test_a_write_uses_the_engine_of_the_primary_itself() -> None:
    """Not a copy: the listeners and the pool are those of the application."""
    primary, replica = engines("db-2")
    assert choose(Intent.write(), primary, replica) is primary


def test_a_tests_replacement_of_a_role_is_used_directly() -> None:
    """An engine that replaces only the primary serves reads as well, because the replicas do not have its writes."""
    primary, replica = engines("db-2")
    assert choose(Intent.read(), primary, OTHER) is OTHER
    assert choose(Intent.write(), primary, OTHER) is primary
    assert choose(Intent.read(), OTHER, replica) is OTHER
    assert choose(Intent.write(), OTHER, replica) is OTHER


@pytest.mark.parametrize("intent", [Intent.read(), Intent.write()])
def test_an_engine_for_each_unit_of_work_takes_the_place_of_both_roles(intent: Intent) -> None:
    """`rolled_back` creates such engines."""
    asked: list[Intent] = []

    class Own(PerUnitOfWork):
        def for_unit_of_work(self, intent: Intent) -> AnyEngine:
            asked.append(intent)
            return OTHER

    _, replica = engines("db-2")
    assert choose(intent, typing.cast(AnyEngine, Own()), replica) is OTHER
    assert asked == [intent]

"""The events that hooks receive."""

import dataclasses
import inspect
import typing

import pytest

from modern_di_replicas import Cause, Decision, observability
from modern_di_replicas.consistency.serializer import Rejection
from modern_di_replicas.observability import Decided, Event, events


EVENTS = [one for _, one in inspect.getmembers(events, inspect.isclass) if issubclass(one, Event) and one is not Event]


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_is_public_and_cannot_be_changed(event: type[Event]) -> None:
    """One hook must not modify the event that the next one receives."""
    assert event.__name__ in observability.__all__
    assert dataclasses.is_dataclass(event)
    assert event.__dataclass_params__.frozen


@pytest.mark.parametrize("cause", Cause)
def test_a_decision_is_one_for_a_read_unless_its_intent_is_to_write(cause: Cause) -> None:
    """Independent of the server that finally executes the read."""
    decided = Decided(decision=Decision(server="db-2", cause=cause, reason=""))
    assert decided.is_read is (cause is not Cause.WRITE)


def test_a_token_is_accepted_or_ignored_for_a_reason_that_is_counted() -> None:
    """An unknown reason would be a label that no alert covers."""
    assert set(typing.get_args(events.TokenOutcome)) == {"accepted", *typing.get_args(Rejection)}

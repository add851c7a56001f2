"""Where a request keeps the decision of its unit of work."""

import contextvars
import typing

import pytest

from modern_di_replicas import Cause
from modern_di_replicas.observability import request
from modern_di_replicas.routing.decision import on_primary, on_replica


FIRST, LAST = on_replica("db-2", "GET"), on_primary(Cause.WROTE, "INSERT")


def test_the_last_decision_of_a_request_stays_in_its_state() -> None:
    """An engine without a decision does not change it."""
    state: dict[str, typing.Any] = {}
    with request.decisions_in(state):
        for decision in (FIRST, LAST, None):
            request.note_decision(decision)
    assert state == {request.DECISION: LAST}


def test_requests_inside_each_other_keep_their_own() -> None:
    """For example an application that calls itself; outside a request nothing is stored."""
    outer: dict[str, typing.Any] = {}
    inner: dict[str, typing.Any] = {}
    request.note_decision(LAST)
    assert not request.keeps_decisions()
    with request.decisions_in(outer):
        assert request.keeps_decisions()
        with request.decisions_in(inner):
            request.note_decision(FIRST)
        request.note_decision(LAST)
    assert not request.keeps_decisions()
    assert (outer, inner) == ({request.DECISION: LAST}, {request.DECISION: FIRST})


def test_a_state_for_the_rest_of_a_context_ends_with_it() -> None:
    """WSGI servers iterate over the body later in the same context."""
    state: dict[str, typing.Any] = {}
    context = contextvars.copy_context()
    context.run(request.keep_decisions_in, state)
    context.run(request.note_decision, FIRST)
    assert state == {request.DECISION: FIRST}
    assert not request.keeps_decisions()


@pytest.mark.parametrize(
    ("server", "value"),
    [
        ("db-2", 'db;desc="db-2 (replica)"'),
        ('d"b\\2', 'db;desc="db2 (replica)"'),
        ("Zürich", 'db;desc="Zürich (replica)"'),
        ("東京", 'db;desc="?? (replica)"'),
    ],
)
def test_a_name_cannot_break_the_header(server: str, value: str) -> None:
    """A quote would end the text, and characters outside Latin-1 would break the response."""
    assert request.timing_of(on_replica(server, "GET")) == value

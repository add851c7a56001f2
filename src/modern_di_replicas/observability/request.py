"""Keep the decision of a unit of work in the state of the current request, for middlewares and handlers.

Every ASGI framework has such a state: `request.state.decision`. A context variable connects them, because the
middleware knows the request, and the session is created later in the container.
"""

import collections.abc
import contextlib
import contextvars
import typing

from modern_di_replicas.routing.decision import Decision


DECISION: typing.Final = "decision"
"""The key in the state of a request."""

State = collections.abc.MutableMapping[str, typing.Any]

_state: contextvars.ContextVar[State | None] = contextvars.ContextVar("modern_di_replicas_request_state", default=None)


def keeps_decisions() -> bool:
    """Return whether the current request keeps decisions, so that one has to be created."""
    return _state.get() is not None


def note_decision(decision: Decision | None) -> None:
    """Put a decision into the state of the current request, if there is one; the last decision stays."""
    state = _state.get()
    if state is not None and decision is not None:
        state[DECISION] = decision


@contextlib.contextmanager
def decisions_in(state: State) -> collections.abc.Iterator[None]:
    """Keep decisions in this state during the block."""
    before = _state.set(state)
    try:
        yield
    finally:
        _state.reset(before)


def keep_decisions_in(state: State) -> None:
    """Keep decisions in this state for the rest of the current context."""
    _state.set(state)


def timing_of(decision: Decision) -> str:
    """Return a decision as the value of a `Server-Timing` header, which browsers show beside the request.

    https://www.w3.org/TR/server-timing/
    """
    words = f"{decision.server} ({decision.cause.value})".replace("\\", "").replace('"', "")
    return f'db;desc="{words}"'.encode("latin-1", "replace").decode("latin-1")

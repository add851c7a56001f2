import datetime as dt
import functools
import typing

import fastapi
import litestar
import pytest

from modern_di_replicas import EVENTUAL, ConfigurationError, Intent, read_intent, write_intent
from modern_di_replicas.intent import marked_intent, resolve_intent


@pytest.mark.parametrize(
    ("method", "is_write"),
    [("GET", False), ("HEAD", False), ("OPTIONS", False)]
    + [(method, True) for method in ("POST", "PUT", "PATCH", "DELETE", "TRACE", "PURGE", "get")],
)
def test_the_method_decides_when_nothing_else_does(method: str, is_write: bool) -> None:
    """Only safe methods read; an unknown method writes."""
    intent = resolve_intent(declared=None, method=method)

    assert intent.is_write is is_write
    assert intent.reason == method


def test_a_marker_wins_over_the_method_and_the_context_over_the_marker() -> None:
    """The more specific declaration takes precedence."""
    read, write = Intent.read(group="a"), Intent.write()

    assert resolve_intent(declared=None, marked=write, method="GET") is write
    assert resolve_intent(declared=read, marked=write, method="POST") is read
    assert resolve_intent(declared=None).is_write


def test_markers_work_with_and_without_parentheses() -> None:
    """Both forms mark the function and return it unchanged."""

    def handler() -> None: ...

    def other() -> None: ...

    assert write_intent(handler) is handler
    assert write_intent()(handler) is handler
    assert read_intent(group="analytics")(other) is other
    assert marked_intent(handler) == Intent.write()
    assert marked_intent(other) == Intent.read(group="analytics")


def test_a_marker_is_found_behind_a_partial_and_a_wrapper() -> None:
    """Frameworks and decorators wrap handlers in both ways."""

    @read_intent
    def handler() -> None: ...

    @functools.wraps(handler)
    def wrapper() -> None: ...

    assert marked_intent(functools.partial(functools.partial(handler))) == Intent.read()
    assert marked_intent(wrapper) == Intent.read()
    assert marked_intent(lambda: None) is None


def test_a_marker_is_found_on_methods_and_callable_objects() -> None:
    """Above `@staticmethod` and `@classmethod`, and on a callable object."""

    class Handlers:
        @write_intent
        @staticmethod
        def static() -> None: ...

        @write_intent
        @classmethod
        def of_class(cls) -> None: ...

        @write_intent
        def __call__(self) -> None: ...

    for endpoint in (Handlers.static, Handlers.of_class, Handlers()):
        assert marked_intent(endpoint) == Intent.write()
    assert marked_intent(Handlers) is None


@pytest.mark.parametrize(
    "misplaced",
    [
        "analytics",
        EVENTUAL,
        type("Controller", (), {}),
        type("Controller", (litestar.Controller,), {"opt": {}}),
        fastapi.APIRouter(),
        litestar.Router("/", route_handlers=[]),
    ],
)
def test_a_marker_on_something_else_than_a_function_is_refused(misplaced: typing.Any) -> None:
    """`@read_intent("analytics")` would have marked a string instead of the handler."""
    with pytest.raises(ConfigurationError, match="group="):
        read_intent(misplaced)


@pytest.mark.parametrize(("field", "value"), [("group", 5), ("affinity", 5), ("after", 5)])
def test_an_invalid_argument_of_an_intent_is_named(field: str, value: typing.Any) -> None:
    """Before a request instead of during one."""
    with pytest.raises(ConfigurationError) as caught:
        Intent.read(**{field: value})
    assert (caught.value.field, caught.value.value) == (field, value)


def test_two_different_markers_on_one_handler_are_refused() -> None:
    """The later one would silently override the earlier one."""

    @read_intent
    def handler() -> None: ...

    with pytest.raises(ConfigurationError) as caught:
        write_intent(handler)

    assert "handler" in caught.value.field
    assert marked_intent(handler) == Intent.read()


def test_intents_are_equal_if_their_declarations_are_equal() -> None:
    """The reason is only for people."""
    assert Intent.read(reason="GET") == Intent.read(reason="@read_intent")
    assert Intent.read() != Intent.write()
    assert Intent.read(group="a") != Intent.read()


def test_the_intent_of_an_endpoint_and_a_method_is_made_once() -> None:
    """Every request needs one; it names its endpoint and its reason."""

    def show() -> None: ...

    def search() -> None: ...

    asked = [(endpoint, method) for endpoint in (show, search, None) for method in ("GET", "POST", "HEAD", None)]
    intents = [resolve_intent(declared=None, endpoint=endpoint, method=method) for endpoint, method in asked]

    for (endpoint, method), intent in zip(asked, intents, strict=True):
        assert resolve_intent(declared=None, endpoint=endpoint, method=method) is intent
        assert intent.is_write is (method not in ("GET", "HEAD"))
        assert intent.reason == (method or "nothing declared")
        assert intent.endpoint.rpartition(".")[2] == (endpoint.__name__ if endpoint else "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("isolation", "SERIALIZABLE"),
        ("isolation", "repeatable read"),
        ("wait", 5),
        ("wait", dt.timedelta(seconds=-1)),
    ],
)
def test_an_isolation_or_a_wait_that_cannot_be_is_an_error(field: str, value: object) -> None:
    """A standby refuses SERIALIZABLE; an unusable value is reported where it is declared."""
    for declare in (Intent.read, read_intent):
        with pytest.raises(ConfigurationError) as caught:
            typing.cast(typing.Any, declare)(**{field: value})
        assert caught.value.field == field


def test_a_marker_declares_isolation_and_wait() -> None:
    """Like `Intent.read`."""

    @read_intent(isolation="REPEATABLE READ", wait=dt.timedelta(seconds=1))
    def report() -> None: ...

    assert marked_intent(report) == Intent.read(isolation="REPEATABLE READ", wait=dt.timedelta(seconds=1))

"""Listeners on one engine are registered with others; on SQLite, because SQLAlchemy does the work."""

import typing

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.pool import NullPool

from modern_di_replicas.cluster.listeners import forward_listeners, forward_listeners_of_options


@pytest.fixture
def receivers() -> list[Engine]:
    return [create_engine("sqlite://", poolclass=NullPool) for _ in range(2)]


@pytest.fixture
def front(receivers: list[Engine]) -> Engine:
    engine = create_engine("sqlite://", poolclass=NullPool)
    forward_listeners(engine, lambda: receivers)
    return engine


def run_on(*engines: Engine) -> None:
    for engine in engines:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))


@pytest.mark.parametrize(
    ("target", "name"),
    [("", "before_cursor_execute"), ("", "connect"), ("dialect", "do_execute"), ("pool", "checkout")],
)
def test_a_listener_hears_every_engine_until_it_is_removed(
    front: Engine, receivers: list[Engine], target: str, name: str
) -> None:
    """Events of the engine, of its dialect and of its pool."""
    heard: list[object] = []

    def listen(*_: object) -> None:
        heard.append(name)

    listened = getattr(front, target) if target else front
    event.listen(listened, name, listen)
    run_on(*receivers)
    assert len(heard) >= len(receivers)
    event.remove(listened, name, listen)
    heard.clear()
    run_on(*receivers, front)
    assert heard == []


def test_a_listener_from_before_stays_with_its_engine(receivers: list[Engine]) -> None:
    """Only listeners that are added later belong to the application."""
    engine, heard = create_engine("sqlite://"), list[object]()
    event.listen(engine, "before_cursor_execute", lambda *_: heard.append(1))
    forward_listeners(engine, lambda: receivers)
    run_on(*receivers)
    assert heard == []


def test_options_of_a_listener_go_along(front: Engine, receivers: list[Engine]) -> None:
    """A listener with `retval=True` returns the statement for each engine."""

    @event.listens_for(front, "before_cursor_execute", retval=True)
    def other(connection: object, cursor: object, statement: str, parameters: object, *_: object) -> typing.Any:  # noqa: ARG001  # the event's signature
        return statement.replace("1", "2"), parameters

    for engine in receivers:
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 2


def test_an_engine_with_options_forwards_to_its_own_engines(front: Engine, receivers: list[Engine]) -> None:
    """Those of `execution_options()` get its listeners, and the others do not."""
    optioned, own, heard = front.execution_options(a=1), receivers[0].execution_options(a=1), list[object]()
    forward_listeners_of_options(optioned, lambda: [own])
    event.listen(optioned, "before_cursor_execute", lambda *_: heard.append(1))
    run_on(*receivers)
    assert heard == []
    run_on(own)
    assert heard == [1]

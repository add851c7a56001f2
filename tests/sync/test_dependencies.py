"""The providers of synchronous applications, and the objects they provide."""

import dataclasses
import threading
import typing

import pytest
import sqlalchemy
from modern_di import Container, Scope, providers
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from modern_di_replicas import ConfigurationError, Intent, ReplicationSettings
from modern_di_replicas.cluster.background import background
from modern_di_replicas.observability.events import Decided
from modern_di_replicas.observability.hook import Event
from modern_di_replicas.routing.decision import Cause
from modern_di_replicas.sync import (
    Dependencies,
    Monitor,
    PrimaryEngine,
    ReplicaEngine,
    RoutedSession,
    choose_engine,
    create_session,
    unit_of_work,
)
from tests.session.models import Shop


IN_RECOVERY = text("SELECT pg_is_in_recovery()")


def container_of(settings: ReplicationSettings, group: type[Dependencies] = Dependencies) -> Container:
    return Container(groups=[group], context={ReplicationSettings: settings})


def test_a_session_class_of_the_application_is_injected(shop: ReplicationSettings) -> None:
    """`session_class` and options customise the session; a class without routing is refused."""

    class Own(RoutedSession):
        pass

    class Customised(Dependencies):
        session = providers.Factory(
            create_session,
            scope=Scope.REQUEST,
            cache=True,
            bound_type=Own,
            kwargs={"session_class": Own, "autoflush": False},
        )

    class OnlyRouted(Dependencies):
        session = providers.Factory(create_session, scope=Scope.REQUEST, cache=True, bound_type=RoutedSession)

    with container_of(shop, Customised) as container, unit_of_work(container) as unit:
        session = unit.resolve(Own)
        assert type(session) is Own
        assert not session.autoflush
        session.close()
    with container_of(shop, OnlyRouted) as container, unit_of_work(container) as unit:
        assert unit.resolve(Session) is unit.resolve(RoutedSession)
        unit.resolve(Session).close()
        primary = container.resolve(PrimaryEngine)
        with pytest.raises(ConfigurationError, match="session_class"):
            create_session(primary, primary, Intent.read(), session_class=Session)  # type: ignore[arg-type]  # on purpose


def test_a_test_may_put_other_engines_in_place_of_ours(shop: ReplicationSettings) -> None:
    """Any engine may replace both roles, or only the primary."""
    engine = create_engine(shop.declared_primary.url)
    other = typing.cast(typing.Any, engine)
    with container_of(shop) as container:
        primary, replica = container.resolve(PrimaryEngine), container.resolve(ReplicaEngine)
        assert choose_engine(Intent.read(), primary, other) is engine
        assert choose_engine(Intent.read(), other, replica) is engine
        assert choose_engine(Intent.write(), other, replica) is engine
        with RoutedSession(engine, intent=Intent.write()) as session, engine.connect() as connection:
            assert session.scalar(IN_RECOVERY) is False
            assert session.decision.cause is Cause.CHOSEN
            assert RoutedSession(connection).scalar(IN_RECOVERY) is False
    engine.dispose()


def test_the_driver_must_be_psycopg() -> None:
    """URLs of asyncpg are refused before anything connects."""
    asynchronous = ReplicationSettings(primary="postgresql+asyncpg://localhost/db")
    with container_of(asynchronous) as container, pytest.raises(ConfigurationError, match=r"postgresql\+psycopg"):
        container.resolve(PrimaryEngine)


def test_hooks_receive_decisions_and_snapshots(shop: ReplicationSettings) -> None:
    """Events are emitted as in the asynchronous half; the monitor's in its own thread, without a session."""
    events: list[Event] = []
    errors: list[str] = []

    class Recorder:
        def on_event(self, event: Event) -> None:
            events.append(event)
            if threading.current_thread() is not threading.main_thread() and not errors:
                try:
                    background.run(never())
                except RuntimeError as error:
                    errors.append(str(error))

    async def never() -> None:
        pytest.fail("it would wait for itself")

    settings = dataclasses.replace(shop, hooks=[Recorder()])
    with container_of(settings) as container, Monitor(container.resolve(ReplicaEngine)):
        for intent in (Intent.read(), Intent.write()):
            with unit_of_work(container, intent=intent) as unit:
                unit.resolve(Session).scalar(IN_RECOVERY)
    assert [one.is_read for one in events if isinstance(one, Decided)] == [True, False]
    assert "do not use a session" in errors[0]


def test_engines_are_sqlalchemys_own_and_of_distinct_types(shop: ReplicationSettings) -> None:
    """INVARIANT: each is the object returned by `create_engine`, with any instrumentation on it.

    SQLAlchemy cannot be given the class of an engine; if an engine can no longer be converted to ours, this fails.
    """
    statements: list[str] = []
    made: list[Engine] = []

    def instrumented(*args: typing.Any, **options: typing.Any) -> Engine:
        engine = create_engine(*args, **options)
        made.append(engine)
        event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
        return engine

    with pytest.MonkeyPatch.context() as patch, container_of(shop) as container:
        patch.setattr(sqlalchemy, "create_engine", instrumented)
        primary, replica = container.resolve(PrimaryEngine), container.resolve(ReplicaEngine)
        assert {id(primary), id(replica)} <= {id(engine) for engine in made}
        assert isinstance(primary, Engine)
        assert not isinstance(primary, ReplicaEngine | AsyncEngine)
        assert isinstance(replica, Engine)
        with unit_of_work(container, intent=Intent.read()) as unit:
            assert unit.resolve(Session).get(Shop, 1)
        with primary.connect() as connection:
            connection.execute(IN_RECOVERY)
        assert len([text for text in statements if "shop" in text]) == 1
        assert "SELECT pg_is_in_recovery()" in statements

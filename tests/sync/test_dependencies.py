"""The providers of synchronous applications, and what they give."""

import concurrent.futures
import dataclasses
import threading
import typing

import pytest
import sqlalchemy
from modern_di import Container, Scope, providers
from sqlalchemy import Engine, create_engine, event, select, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from modern_di_replicas import ConfigurationError, Intent, ReplicationSettings, current_token
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
    SessionFactory,
    choose_engine,
    create_session,
    unit_of_work,
)
from tests.session.models import Account, Shop


IN_RECOVERY = text("SELECT pg_is_in_recovery()")


def container_of(settings: ReplicationSettings, group: type[Dependencies] = Dependencies) -> Container:
    return Container(groups=[group], context={ReplicationSettings: settings})


def test_a_unit_of_work_reads_or_writes_as_it_declares(shop: ReplicationSettings) -> None:
    """A read uses a replica, a write and what declares nothing the primary; the ends give all connections back."""
    with container_of(shop) as container:
        container.validate()
        for intent, on_replica in ((Intent.read(), True), (Intent.write(), False), (None, False)):
            with unit_of_work(container, intent=intent) as unit:
                session = unit.resolve(Session)
                assert session is unit.resolve(RoutedSession)
                assert session.scalar(IN_RECOVERY) is on_replica
                with unit.resolve(SessionFactory)() as another:
                    assert another.scalar(IN_RECOVERY) is on_replica
        primary, replica = container.resolve(PrimaryEngine), container.resolve(ReplicaEngine)
        assert primary.pool.checkedout() == replica.pool.checkedout() == 0  # type: ignore[attr-defined]  # of pools of ours
        pools: list[typing.Any] = [primary.pool, *(engine.pool for engine in replica.engines.values())]
        assert sum(pool.checkedin() for pool in pools) >= 2
    pools = [primary.pool, *(engine.pool for engine in replica.engines.values())]
    assert sum(pool.checkedin() for pool in pools) == 0


def test_a_unit_of_work_reads_what_it_and_those_before_it_have_written(shop: ReplicationSettings) -> None:
    """In each thread a unit of work has a record of its own, and the next one in the same thread knows it."""
    with container_of(shop) as container, Monitor(container.resolve(ReplicaEngine)):

        def write_and_read(balance: int) -> list[int | None]:
            with unit_of_work(container, intent=Intent.write()) as unit:
                unit.resolve(Session).execute(text("UPDATE account SET balance = :b"), {"b": balance})
                unit.resolve(Session).commit()
            with unit_of_work(container, intent=Intent.read()) as unit:
                session = unit.resolve(Session)
                return [session.scalar(select(Account.balance))]

        for balance in range(10):
            assert write_and_read(balance) == [balance]
        token = current_token()
        assert token is not None
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            assert executor.submit(current_token).result() is None
            assert executor.submit(write_and_read, 100).result() == [100]
        assert current_token() == token
        with unit_of_work(container, intent=Intent.read(), token=token) as unit:
            assert unit.resolve(Session).scalar(select(Account.balance)) == 100


def test_the_sessions_of_a_unit_of_work_share_its_server(shop: ReplicationSettings) -> None:
    """Those in other threads read from the same replica, and begin on the primary once one of them has moved there."""
    with container_of(shop) as container, unit_of_work(container, intent=Intent.read()) as unit:
        sessions = unit.resolve(SessionFactory)
        first = unit.resolve(RoutedSession)
        first.scalar(IN_RECOVERY)
        client = current_token()

        def in_thread(write: bool) -> tuple[str, bool | None]:
            with sessions.in_thread() as session:
                if write:
                    session.execute(text("UPDATE account SET balance = balance"))
                    session.commit()
                return session.decision.server, session.scalar(IN_RECOVERY)

        with concurrent.futures.ThreadPoolExecutor(4) as executor:
            assert set(executor.map(in_thread, [False] * 8)) == {(first.decision.server, True)}
            assert executor.submit(in_thread, True).result() == ("primary", False)
            assert executor.submit(in_thread, False).result() == ("primary", False)
        assert first.scalar(IN_RECOVERY), "one that is open stays where it is"
        assert current_token() != client, "what was committed in the thread is known to this unit of work"
        left_open = sessions(autoflush=False)
        assert not left_open.autoflush
        assert sessions.has_open
    assert not sessions.has_open


def test_a_session_class_of_the_application_is_injected(shop: ReplicationSettings) -> None:
    """`session_class` and options customise the session; one that does not route is refused."""

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
    with pytest.raises(ConfigurationError, match="RoutedSession"):
        SessionFactory(Session())


def test_a_test_may_put_other_engines_in_place_of_ours(shop: ReplicationSettings) -> None:
    """Both roles, or only the primary, may be any engine."""
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


def test_hooks_are_told_of_decisions_and_snapshots(shop: ReplicationSettings) -> None:
    """Events are emitted as in the asynchronous half; the monitor's in its own thread, where no session may be used."""
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
    """INVARIANT: each is the object that `create_engine` has made, with what instrumentation has put on it.

    SQLAlchemy has no way to name the class of an engine; if an engine can no longer become ours, this fails.
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

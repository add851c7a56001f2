"""A synchronous session's handling of each statement, with the guarantees of `tests/session`, in a thread."""

import collections.abc
import typing

import pytest
import sqlalchemy
import sqlmodel
from sqlalchemy import event, func, insert, select, text, update
from sqlalchemy.orm import Query, Session, scoped_session, selectinload, sessionmaker

from modern_di_replicas import (
    STRONG,
    ConfigurationError,
    Intent,
    ReplicationSettings,
    StaleWriteError,
    WriteOnReplicaError,
    current_token,
    use_primary,
)
from modern_di_replicas.routing.decision import Cause
from modern_di_replicas.sync import Monitor, RoutedSession
from tests.session.models import Account, Item, Shop, numbers
from tests.sync.conftest import Servers, serving


IN_RECOVERY = text("SELECT pg_is_in_recovery()")


def flush(session: RoutedSession) -> None:
    session.add(Item(id=901, shop_id=1, amount=1))
    session.flush()


# Statements that escalate, and the reason.
ESCALATIONS: dict[str, tuple[Cause, collections.abc.Callable[[RoutedSession], object]]] = {
    "insert": (Cause.WROTE, lambda s: s.execute(insert(Item).values(id=900, shop_id=1, amount=1))),
    "update": (Cause.WROTE, lambda s: s.execute(update(Item).where(Item.id == 1).values(amount=Item.amount))),
    "text update": (Cause.WROTE, lambda s: s.execute(text("UPDATE item SET amount = amount WHERE id = 1"))),
    "writable cte": (
        Cause.WROTE,
        lambda s: s.execute(text("WITH w AS (UPDATE item SET amount = amount WHERE id = 1 RETURNING 1) SELECT 1")),
    ),
    "for update": (Cause.WROTE, lambda s: s.execute(select(Item).where(Item.id == 1).with_for_update())),
    "sequence": (Cause.WROTE, lambda s: s.scalar(select(func.nextval(numbers.name)))),
    "function that writes": (Cause.WROTE, lambda s: s.scalar(text("SELECT visit()"))),
    "procedure": (Cause.WROTE, lambda s: s.execute(text("CALL restock()"))),
    "flush": (Cause.WROTE, flush),
    "legacy query": (Cause.WROTE, lambda s: Query(Item, s).filter(Item.id == 1).update({"amount": Item.amount})),
    "savepoint": (Cause.WROTE, lambda s: s.begin_nested()),
    "connection": (Cause.NEEDS_TRANSACTION, lambda s: s.connection()),
    "option": (Cause.USE_PRIMARY, lambda s: s.execute(IN_RECOVERY, execution_options={"use_primary": True})),
    "set local": (Cause.NEEDS_TRANSACTION, lambda s: s.execute(text("SET LOCAL work_mem = '8MB'"))),
}


@pytest.mark.parametrize("write", ESCALATIONS)
def test_statements_that_a_replica_cannot_run_escalate(servers: Servers, write: str) -> None:
    """The session moves before or after the statement is sent, stays there, and gives the reason."""
    cause, run = ESCALATIONS[write]
    with servers.session() as session:
        assert session.scalar(IN_RECOVERY)
        run(session)
        assert session.decision.cause is cause
        assert not session.scalar(IN_RECOVERY)
        session.rollback()


def test_a_read_runs_on_one_replica_to_its_end(servers: Servers) -> None:
    """Every statement of a unit of work runs on the same replica, loads of the ORM included."""
    with servers.session() as session:
        where = select(func.inet_server_port())
        first = session.scalar(where)
        shop = session.get(Shop, 1)
        assert shop is not None
        assert len(shop.items) == 200  # lazily loaded
        session.scalars(select(Shop).options(selectinload(Shop.items))).all()
        assert session.scalar(where) == first
        assert session.scalar(IN_RECOVERY)
        assert session.decision.cause is Cause.REPLICA


def test_rows_come_one_by_one_from_the_replica(servers: Servers) -> None:
    """`yield_per` uses a server-side cursor, in a transaction that only reads."""
    with servers.session() as session:
        streamed = session.scalars(select(Item).order_by(Item.id).execution_options(yield_per=50))
        assert [item.id for item in streamed] == list(range(1, 201))
        assert [item.id for item in session.query(Item).order_by(Item.id).yield_per(50)] == list(range(1, 201))
        assert session.decision.cause is Cause.REPLICA


def test_a_stale_object_is_not_written(servers: Servers) -> None:
    """An object from the replica is not written over the primary's row, unless its mapper is versioned."""
    with servers.session() as session:
        item, account = session.get(Item, 1), session.get(Account, 1)
        assert item is not None
        assert account is not None
        account.balance += 0
        item.amount += 1
        with pytest.raises(StaleWriteError):
            session.commit()
        session.rollback()
    with servers.session() as session:
        account = session.get(Account, 1)
        assert account is not None
        account.balance += 1
        session.commit()
        account.balance -= 1
        session.commit()


def test_a_write_is_refused_where_the_settings_say_so(shop: ReplicationSettings) -> None:
    """With `on_write="raise"` nothing is sent to the primary."""
    with serving(shop, on_write="raise") as servers, servers.session() as session:
        with pytest.raises(WriteOnReplicaError):
            session.execute(text("DELETE FROM item"))
        session.rollback()


def test_use_primary_holds_in_its_thread(servers: Servers) -> None:
    """`use_primary()` applies to sessions and Core of its thread."""
    with use_primary(), servers.session() as session, servers.replica.connect() as connection:
        assert not session.scalar(IN_RECOVERY)
        assert not connection.scalar(IN_RECOVERY)
    with servers.replica.connect() as connection:
        assert connection.scalar(IN_RECOVERY)


def test_a_commit_gives_a_token_that_the_next_read_includes(servers: Servers) -> None:
    """After a commit on the primary, in any way, a read after its token finds what was written."""
    with Monitor(servers.replica):
        for number in range(5):
            with servers.primary.begin() as connection:
                connection.execute(text("UPDATE account SET balance = :b"), {"b": number})
            token = current_token()
            assert token is not None
            with servers.session(intent=Intent.read(after=token)) as session:
                assert session.scalar(select(Account.balance)) == number
        with servers.primary.begin() as connection:
            connection.execute(text("UPDATE account SET balance = 100"))


def test_a_strong_read_uses_the_primary(servers: Servers) -> None:
    """The level of the intent applies."""
    with servers.session(intent=Intent.read(consistency=STRONG)) as session:
        assert not session.scalar(IN_RECOVERY)
        assert session.decision.cause is Cause.STRONG


class Own(Session):
    """A session class of an application that counts calls of its methods."""

    seen: list[str]

    def __init__(self, *args: typing.Any, **options: typing.Any) -> None:
        self.seen = []
        super().__init__(*args, **options)

    def execute(self, *args: typing.Any, **options: typing.Any) -> typing.Any:
        self.seen.append("execute")
        return super().execute(*args, **options)

    def get(self, *args: typing.Any, **options: typing.Any) -> typing.Any:
        self.seen.append("get")
        return super().get(*args, **options)

    def commit(self) -> None:
        self.seen.append("commit")
        super().commit()


class Combined(RoutedSession, Own):
    """A combination written in the application."""


def test_the_session_class_of_sqlalchemy_may_be_named_as_a_base(servers: Servers) -> None:
    """It changes nothing; `class S(RoutedSession, Own)` with an alias of it is not an error."""
    named = type("Named", (RoutedSession, Session), {})
    with named(servers.replica) as session:
        assert session.scalar(IN_RECOVERY)


@pytest.mark.parametrize("on_replica", [True, False])
def test_the_methods_of_an_applications_class_run_on_both_roles(servers: Servers, on_replica: bool) -> None:
    """Overridden methods are called exactly as without the library."""
    engine = servers.replica if on_replica else servers.primary
    seen = []
    for session in (Combined(engine), Own(engine)):
        with session:
            assert session.execute(IN_RECOVERY).scalar() is on_replica
            assert session.get(Shop, 1)
            session.commit()
            seen.append(session.seen)
    assert seen[0] == seen[1]


def test_statements_that_an_overridden_method_passes_to_super_are_routed(servers: Servers) -> None:
    """INVARIANT: under any method name: SQLModel's `exec()` runs `super().execute()`."""

    class Asking(Session):
        def ask(self, statement: typing.Any) -> typing.Any:
            return super().execute(statement).scalar()

        def first(self, statement: typing.Any) -> typing.Any:
            return super().scalars(statement).first()

    class After(RoutedSession, Asking):
        pass

    class Before(Asking, RoutedSession):
        pass

    class Further(After, sqlmodel.Session):
        pass

    for kind in (After, Before, Further):
        with kind(servers.replica) as session:
            assert session.ask(IN_RECOVERY)
            assert session.first(select(Item.amount).where(Item.id == 1)) == 10
            session.ask(text("UPDATE account SET balance = balance RETURNING id"))
            assert session.decision.cause is Cause.WROTE
            assert not session.ask(IN_RECOVERY)
    with Further(servers.replica) as further:
        assert further.exec(select(Item.amount).where(Item.id == 1)).one() == (10,)  # type: ignore[call-overload]  # SQLModel types its own `select` only
        further.exec(text("UPDATE account SET balance = balance"))  # type: ignore[call-overload]
        assert further.decision.cause is Cause.WROTE


def test_an_applications_get_bind_wins(servers: Servers) -> None:
    """The result of an overridden `get_bind()` is used, even if the class comes after ours."""
    other = sqlalchemy.create_engine(servers.settings.declared_primary.url)

    class Elsewhere(Session):
        def get_bind(self, mapper: typing.Any = None, **options: typing.Any) -> typing.Any:
            return other if mapper is Account.__mapper__ else super().get_bind(mapper, **options)

    class After(RoutedSession, Elsewhere):
        pass

    class Inside(RoutedSession):
        def get_bind(self, mapper: typing.Any = None, **options: typing.Any) -> typing.Any:
            return other if mapper is Account.__mapper__ else super().get_bind(mapper, **options)

    queries = []
    event.listen(other, "before_cursor_execute", lambda *args: queries.append(args[2]))
    for kind in (After, Inside):
        with kind(servers.replica) as session:
            assert session.scalar(select(Account.balance)) == 100
            assert session.scalar(IN_RECOVERY)
            assert session.decision.cause is Cause.REPLICA
        with kind(servers.primary) as session:
            assert session.scalar(select(Account.balance)) == 100
            assert not session.scalar(IN_RECOVERY)
    assert len(queries) == 4
    other.dispose()


def test_sessionmaker_and_scoped_session_make_it(servers: Servers) -> None:
    """SQLAlchemy's own factories create sessions that read from a replica."""
    factory = sessionmaker(bind=servers.replica, class_=RoutedSession, autoflush=False)
    scoped = scoped_session(factory)
    assert scoped.scalar(IN_RECOVERY)
    assert isinstance(scoped(), RoutedSession)
    scoped.remove()
    with factory.begin() as session:
        assert session.scalar(IN_RECOVERY)
        assert not session.autoflush


def test_invalid_options_are_refused(servers: Servers) -> None:
    """Two engines, or a two-phase commit, are configuration errors."""
    with pytest.raises(ConfigurationError, match="bind"):
        RoutedSession(servers.replica, bind=servers.primary)
    with pytest.raises(ConfigurationError, match="twophase"):
        RoutedSession(servers.replica, twophase=True)


def test_a_transaction_of_a_test_is_joined_by_a_savepoint(servers: Servers) -> None:
    """A session that escalates to a connection commits only its savepoint; the test rolls everything back."""
    with servers.primary.connect() as connection:
        transaction = connection.begin()
        with servers.session(primary=connection, join_transaction_mode="create_savepoint") as session:
            assert session.scalar(IN_RECOVERY)
            session.execute(text("UPDATE account SET balance = 7"))
            session.commit()
            assert session.scalar(select(Account.balance)) == 7
        assert transaction.is_active
        transaction.rollback()
        assert connection.scalar(select(Account.balance)) == 100


def test_objects_expire_at_a_commit_as_in_sqlalchemy(servers: Servers) -> None:
    """They are reloaded on access: from the replica after reads, from the primary after a write."""
    with servers.session() as session:
        item = session.get_one(Item, 1)
        session.commit()
        assert item.amount == 10
        assert session.decision.server != "primary"
        session.execute(text("UPDATE account SET balance = balance"))
        session.commit()
        assert item.amount == 10
        assert session.decision.cause is Cause.WROTE
        item.amount += 0  # it is from the primary now, and may be written
        item.amount += 1
        session.flush()
        session.rollback()

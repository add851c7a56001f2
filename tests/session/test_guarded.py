"""Events that a session reports to its guard; on SQLite, because only their order matters."""

import collections.abc

import pytest
from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.orm.exc import UnmappedInstanceError
from sqlalchemy.pool import StaticPool

from modern_di_replicas import Cause, StaleWriteError
from modern_di_replicas.routing.decision import on_primary
from modern_di_replicas.session.guarded import GuardedSession


class Base(DeclarativeBase): ...


class Shop(Base):
    __tablename__ = "shop"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    items: Mapped[list["Item"]] = relationship(cascade="all")


class Item(Base):
    __tablename__ = "item"

    id: Mapped[int] = mapped_column(primary_key=True)
    shop_id: Mapped[int] = mapped_column(ForeignKey("shop.id"))


@pytest.fixture
def session() -> collections.abc.Iterator[GuardedSession]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as before:
        before.add(Shop(id=1, items=[Item(id=1)]))
        before.commit()
    with GuardedSession(engine, expire_on_commit=False) as session:
        yield session
    engine.dispose()


def leave(session: GuardedSession) -> None:
    """Simulate a session that leaves its replica."""
    session.escalation = on_primary(Cause.USE_PRIMARY, "a test")
    session.guard.left_replica(session)


def test_objects_loaded_before_the_move_may_not_be_written(session: GuardedSession) -> None:
    """Objects loaded afterwards may be written."""
    shop = session.get_one(Shop, 1)
    leave(session)
    shop.name = "stale"
    with pytest.raises(StaleWriteError):
        session.check_changes()
    session.expire(shop)
    shop.name = "fresh"
    session.refresh(shop)
    shop.name = "fresh"
    session.flush()
    session.delete(session.get_one(Item, 1))
    session.flush()


def test_deleted_objects_are_checked_as_well(session: GuardedSession) -> None:
    """The row may have changed meanwhile."""
    item = session.get_one(Item, 1)
    leave(session)
    session.delete(item)
    with pytest.raises(StaleWriteError):
        session.check_changes()


@pytest.mark.parametrize("how", ["expunge", "expunge_all", "close"])
def test_expunged_objects_are_known_when_they_return(session: GuardedSession, how: str) -> None:
    """With its cascaded objects; objects of another session are not affected."""
    shop = session.get_one(Shop, 1)
    item = shop.items[0]
    if how == "expunge":
        session.expunge(shop)
    else:
        getattr(session, how)()
    leave(session)
    assert session.has_contained(shop)
    assert session.has_contained(item)
    assert not session.has_contained(Shop(id=1))
    session.add(shop)
    shop.name = "stale"
    with pytest.raises(StaleWriteError):
        session.flush()


def test_a_merged_object_is_as_stale_as_before(session: GuardedSession) -> None:
    """INVARIANT: a merge writes all attributes of the object over those of the primary."""
    shop = session.get_one(Shop, 1)
    session.expunge(shop)
    leave(session)
    shop.name = "stale"
    session.merge(shop)
    with pytest.raises(StaleWriteError):
        session.flush()


def test_an_object_merged_from_outside_may_be_written(session: GuardedSession) -> None:
    """For example a form of the user."""
    session.get_one(Shop, 1)
    session.expunge_all()
    leave(session)
    session.merge(Shop(id=1, name="of a form"))
    session.flush()


def test_a_class_of_another_database_is_not_checked(session: GuardedSession) -> None:
    """Its objects come neither from the replicas nor from their primary."""
    mapper = Shop.__mapper__
    assert not session.is_bound_elsewhere(mapper)
    session.bind_mapper(Shop, create_engine("sqlite://"))
    session.has_binds = True
    assert session.is_bound_elsewhere(mapper)
    leave(session)
    checked: list[object] = []
    session.check_written(Shop(id=1), checked.append)
    assert checked == []


def test_after_a_stream_only_objects_read_from_the_primary_are_fresh(session: GuardedSession) -> None:
    """Rows of the replica may still arrive later."""
    assert session.loads_from_primary
    session.has_streamed = True
    assert not session.loads_from_primary
    seen = session.run_on_primary(lambda asked, *_: asked.loads_from_primary, "SELECT 1", (), {})
    assert seen is True
    assert not session.loads_from_primary


@pytest.mark.parametrize("operation", [GuardedSession.merge, GuardedSession.expunge])
def test_an_unmapped_object_raises_sqlalchemys_error(
    session: GuardedSession, operation: collections.abc.Callable[[GuardedSession, object], object]
) -> None:
    """SQLAlchemy's own tests expect it, and an application may as well."""
    with pytest.raises(UnmappedInstanceError):
        operation(session, "an item")


def test_rows_that_come_after_the_end_are_refused(session: GuardedSession) -> None:
    """After the session has left its replica, or has streamed from it, such rows would not be tracked."""
    session.escalation = on_primary(Cause.WROTE, "INSERT")
    result = Session.execute(session, select(Shop))
    session.expunge_all()
    with pytest.raises(InvalidRequestError, match="no longer valid"):
        result.all()

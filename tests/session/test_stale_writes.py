"""An object from a replica may be older than its row: writing it must not undo another client's update."""

import typing

import pytest
import sqlalchemy
from sqlalchemy import Table, case, delete, select, text, update
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    deferred,
    foreign,
    relationship,
    remote,
    selectinload,
)
from sqlalchemy.orm.exc import StaleDataError

from modern_di_replicas import ReplicasError, RoutedSession, StaleWriteError
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import Servers, serving
from tests.session.models import Account, Item, Shop


class Base(AsyncAttrs, DeclarativeBase):
    """Other mappings of the shop's tables."""


class Thing(Base):
    """An item without a reference to its shop."""

    __table__ = Item.__table__
    id: Mapped[int]
    shop_id: Mapped[int]
    amount: Mapped[int]


class Owner(Base):
    """A shop that deletes its orphans."""

    __table__ = Shop.__table__
    id: Mapped[int]
    items: Mapped[list[Thing]] = relationship(cascade="all, delete-orphan", order_by=Thing.id, overlaps="items,shop")


class Shelf(Base):
    """A shop that clears the foreign keys of removed items."""

    __table__ = Shop.__table__
    id: Mapped[int]
    items: Mapped[list[Thing]] = relationship(order_by=Thing.id, overlaps="items,shop")


class Stock(Base):
    """An item that owns the item whose number is its amount."""

    __table__ = Item.__table__
    id: Mapped[int]
    amount: Mapped[int]
    owned: Mapped[Thing | None] = relationship(
        primaryjoin=lambda: foreign(Stock.amount) == remote(Thing.id), cascade="all, delete-orphan", single_parent=True
    )


class Case(Base):
    """A shop with its one item that is not for sale."""

    __table__ = Shop.__table__
    id: Mapped[int]
    thing: Mapped[Thing | None] = relationship(
        primaryjoin=lambda: sqlalchemy.and_(Case.id == foreign(Thing.shop_id), Thing.amount < 0), overlaps="items,shop"
    )


class Lazy(Base):
    """An item with a lazily loaded shop."""

    __table__ = Item.__table__
    amount: Mapped[int]
    shop_id: Mapped[int] = deferred(typing.cast(Table, Item.__table__).c.shop_id)


class Low(Base):
    """An item of one of two classes, depending on its number."""

    __table__ = Item.__table__
    id: Mapped[int]
    amount: Mapped[int]
    __mapper_args__ = {  # noqa: RUF012  # as SQLAlchemy's documentation writes it
        "polymorphic_on": case((typing.cast(Table, Item.__table__).c.id < 9, "low"), else_="high"),
        "polymorphic_identity": "low",
    }


class High(Low):
    __mapper_args__ = {"polymorphic_identity": "high"}  # noqa: RUF012


async def amount_on_primary(servers: Servers) -> int | None:
    async with RoutedSession(servers.primary) as session:
        return await session.scalar(select(Item.amount).where(Item.id == 1))


async def shops_on_primary(servers: Servers) -> list[int]:
    async with RoutedSession(servers.primary) as session:
        return list(await session.scalars(select(Shop.id)))


async def test_a_read_modify_write_of_a_stale_object_cannot_lose_an_update(disposable_shop: LocalCluster) -> None:
    """INVARIANT: with the replica behind, naive code would write 10 + 1 over 500 + 1."""
    for replica in disposable_shop.replicas:
        replica.pause_replay()
    async with serving(disposable_shop) as servers:
        async with RoutedSession(servers.primary) as other:
            await other.execute(update(Item).where(Item.id == 1).values(amount=500))
            await other.commit()

        async with servers.session() as session:
            item = await session.get_one(Item, 1)
            assert item.amount == 10, "the replica is not behind: the test would prove nothing"
            item.amount += 1
            with pytest.raises(StaleWriteError) as caught:
                await session.commit()
            await session.rollback()

        assert await amount_on_primary(servers) == 500
        assert (caught.value.model, caught.value.key) == ("Item", (1,))
        assert all(remedy in str(caught.value) for remedy in ("@write_intent", "refresh", "version_id_col"))


async def test_a_versioned_object_fails_only_when_it_is_stale(
    disposable_shop: LocalCluster,
) -> None:
    """PostgreSQL compares the version, so the guard allows the write."""
    async with serving(disposable_shop) as servers:
        async with servers.session() as session:
            account = await session.get_one(Account, 1)
            account.balance += 1
            await session.commit()
            assert account.balance == 101

        disposable_shop.catch_up()
        for replica in disposable_shop.replicas:
            replica.pause_replay()
        async with RoutedSession(servers.primary) as other:
            (await other.get_one(Account, 1)).balance = 500
            await other.commit()

        async with servers.session() as session:
            account = await session.get_one(Account, 1)
            assert account.balance == 101
            account.balance += 1
            with pytest.raises(StaleDataError):
                await session.commit()
            await session.rollback()
        async with RoutedSession(servers.primary) as session:
            assert (await session.get_one(Account, 1)).balance == 500


async def leave(session: RoutedSession) -> None:
    await session.execute(text("SELECT 1").execution_options(use_primary=True))


@pytest.mark.parametrize("how", ["get", "select", "statement's own"])
async def test_use_primary_reloads_the_sessions_objects(disposable_shop: LocalCluster, how: str) -> None:
    """The object from the replica is reloaded, and may be written then."""
    for replica in disposable_shop.replicas:
        replica.pause_replay()
    disposable_shop.primary.execute("UPDATE item SET amount = 500 WHERE id = 1")
    async with serving(disposable_shop) as servers, servers.session() as session:
        item = await session.get_one(Item, 1)
        assert item.amount == 10, "the replica is not behind: the test would prove nothing"
        wanted = select(Item).where(Item.id == 1)
        if how == "get":
            await session.get_one(Item, 1, execution_options={"use_primary": True})
        elif how == "select":
            await session.scalars(wanted, execution_options={"use_primary": True})
        else:
            await session.scalars(wanted.execution_options(use_primary=True))
        assert item.amount == 500
        item.amount += 1
        await session.commit()
        assert await amount_on_primary(servers) == 501


@pytest.mark.parametrize("isolation", ["AUTOCOMMIT", "READ COMMITTED"])
@pytest.mark.parametrize("how", ["changed", "deleted", "refreshed by the stream"])
async def test_objects_of_a_replicas_stream_after_the_move_are_stale(
    shop_cluster: LocalCluster, isolation: typing.Any, how: str
) -> None:
    """INVARIANT: the server of its row determines an object's state, not its creation time."""
    async with serving(shop_cluster, read_isolation=isolation) as servers, servers.session() as session:
        query = select(Item).order_by(Item.id).limit(20).execution_options(yield_per=2)
        if how == "refreshed by the stream":
            await session.get_one(Item, 9)
            query = query.execution_options(populate_existing=True)
        async for item in await session.stream_scalars(query):
            if item.id == 1:
                await leave(session)
            elif item.id == 9:
                break
        if how == "deleted":
            await session.delete(item)
        else:
            item.amount += 1
        with pytest.raises(StaleWriteError) as caught:
            await session.flush()
        assert caught.value.key == (9,)
        await session.rollback()


async def test_a_class_that_a_stream_meets_after_the_move_is_stale_too(shop_cluster: LocalCluster) -> None:
    """INVARIANT: SQLAlchemy prepares for a subclass at its first row, and only then listens on the session."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        query = select(Low).order_by(Low.id).limit(20).execution_options(yield_per=2)
        async for item in await session.stream_scalars(query):
            if item.id == 1:
                await leave(session)
            elif item.id == 9:
                break
        assert isinstance(item, High)
        item.amount += 1
        with pytest.raises(StaleWriteError):
            await session.flush()
        await session.rollback()


@pytest.mark.parametrize("how", ["refreshed before the move", "overwritten by a stream after it"])
async def test_an_object_that_gets_values_of_the_replica_is_stale_again(shop_cluster: LocalCluster, how: str) -> None:
    """Whatever server it came from, and whatever it had before."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        if how == "refreshed before the move":
            async with RoutedSession(servers.primary) as loader:
                item = await loader.get_one(Item, 9)
            session.add(item)
            await session.refresh(item)
            await leave(session)
        else:
            query = select(Item).order_by(Item.id).limit(20)
            async for one in await session.stream_scalars(query.execution_options(yield_per=2, populate_existing=True)):
                if one.id == 1:
                    await leave(session)
                    item = await session.get_one(Item, 9)
                elif one.id == 9:
                    break
        item.amount += 1
        with pytest.raises(StaleWriteError):
            await session.flush()
        await session.rollback()


async def test_a_stream_after_its_own_flush_reads_from_the_primary(shop_cluster: LocalCluster) -> None:
    """Objects it refreshes may be written."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        item = await session.get_one(Item, 1)
        session.add(Item(id=902, shop_id=1, amount=1))
        query = select(Item).where(Item.id == 1).execution_options(populate_existing=True)
        async for one in await session.stream_scalars(query):
            assert one is item
        item.amount += 1
        await session.flush()
        await session.rollback()


@pytest.mark.parametrize("how", ["get", "select"])
async def test_use_primary_keeps_unflushed_changes(shop_cluster: LocalCluster, how: str) -> None:
    """Without autoflush a change is only in memory; it is kept, and checked at the flush."""
    async with serving(shop_cluster) as servers, servers.session(autoflush=False) as session:
        account = await session.get_one(Account, 1)
        account.balance += 7
        if how == "get":
            await session.get_one(Account, 1, execution_options={"use_primary": True})
        else:
            await session.scalars(select(Account), execution_options={"use_primary": True})
        assert account.balance == 107
        await session.flush()
        await session.rollback()


async def test_objects_of_a_replicas_result_after_the_move_are_stale(shop_cluster: LocalCluster) -> None:
    """In `run_sync`, the objects of a result are created when they are fetched."""

    def change_late(session: Session) -> None:
        items = session.scalars(select(Item).order_by(Item.id).limit(3))
        session.execute(text("SELECT 1").execution_options(use_primary=True))
        items.all()[2].amount += 1
        session.flush()

    async with serving(shop_cluster) as servers, servers.session() as session:
        with pytest.raises(StaleWriteError):
            await session.run_sync(change_late)
        await session.rollback()


async def test_objects_of_a_stream_of_the_primary_may_be_written(shop_cluster: LocalCluster) -> None:
    """The unit of work has already left its replica."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        await leave(session)
        async for item in await session.stream_scalars(select(Item).where(Item.id == 3)):
            item.amount += 1
        await session.flush()
        await session.rollback()


def test_ordinary_mappers_have_no_listener_of_the_guard() -> None:
    """INVARIANT: libraries that look for mapper listeners, such as Advanced Alchemy, find none of the guard."""
    names = ("before_insert", "after_insert", "before_update", "after_update", "before_delete", "after_delete")
    assert [name for name in names if getattr(sqlalchemy.inspect(Item).dispatch, name)] == []


@pytest.mark.parametrize("owner", [Owner, Shelf])
async def test_a_collection_cannot_write_the_row_of_a_stale_object(
    shop_cluster: LocalCluster, owner: typing.Any
) -> None:
    """INVARIANT: a flush writes more than the changed attributes: it deletes orphans, and clears foreign keys."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        held = await session.get_one(owner, 1, options=[selectinload(owner.items)])
        held.items.pop(0)
        with pytest.raises(StaleWriteError) as caught:
            await session.commit()
        assert (caught.value.model, caught.value.key) == ("Thing", (1,))
        await session.rollback()
        assert await amount_on_primary(servers) == 10


async def test_a_stale_object_cannot_be_added_to_a_collection(shop_cluster: LocalCluster) -> None:
    """The flush would write the foreign key in its row."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        thing = await session.get_one(Thing, 1)
        session.add(Shelf(id=2, name="new", items=[thing]))
        with pytest.raises(StaleWriteError) as caught:
            await session.commit()
        assert (caught.value.model, caught.value.key) == ("Thing", (1,))
        await session.rollback()
        assert await shops_on_primary(servers) == [1], "the flush was not rolled back"


async def test_a_stale_orphan_of_a_fresh_object_is_not_deleted(shop_cluster: LocalCluster) -> None:
    """INVARIANT: only the flush itself knows that it deletes the orphan of a reference."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        stock = await session.get_one(Stock, 1, options=[selectinload(Stock.owned)])
        await leave(session)
        await session.refresh(stock, ["id", "shop_id", "amount"])
        stock.owned = Thing(id=999, shop_id=1, amount=5)
        with pytest.raises(StaleWriteError) as caught:
            await session.commit()
        assert (caught.value.model, caught.value.key) == ("Thing", (10,))
        await session.rollback()
        assert await amount_on_primary(servers) == 10


async def test_an_object_referenced_by_a_new_one_is_not_written(shop_cluster: LocalCluster) -> None:
    """The reference is in the new object's row; the whole is not stale because of a part."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        held = await session.get_one(Case, 1, options=[selectinload(Case.thing)])
        held.thing = Thing(id=999, amount=-1)
        await session.flush()
        assert held.thing.shop_id == 1
        await session.rollback()


async def test_a_reference_to_another_object_is_a_change(shop_cluster: LocalCluster) -> None:
    """The change is in the referring object's row, and is refused before anything is sent."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        item = await session.get_one(Item, 1)
        item.shop = Shop(id=2, name="new")
        with pytest.raises(StaleWriteError) as caught:
            await session.flush()
        assert (caught.value.model, caught.value.key) == ("Item", (1,))
        with session.no_autoflush:
            assert await session.scalar(select(Item.amount).where(Item.id == 2)) == 20, "there is nothing to roll back"
        await session.rollback()


@pytest.mark.parametrize("how", ["expunge", "expunge_all", "close"])
async def test_an_object_that_left_the_session_and_came_back_is_still_stale(
    shop_cluster: LocalCluster, how: str
) -> None:
    """It belongs to no other session."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        item = await session.get_one(Item, 1)
        if how == "expunge":
            session.expunge(item)
        elif how == "expunge_all":
            session.expunge_all()
        else:
            await session.close()
            await session.get_one(Item, 2)
        session.add(item)
        item.amount += 1
        with pytest.raises(StaleWriteError):
            await session.flush()
        await session.rollback()


async def test_objects_expunged_by_a_cascade_are_still_stale(shop_cluster: LocalCluster) -> None:
    """The cascade of an expunge follows the relationship."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        owner = await session.get_one(Owner, 1, options=[selectinload(Owner.items)])
        session.expunge(owner)
        session.add(owner)
        owner.items[0].amount += 1
        with pytest.raises(StaleWriteError) as caught:
            await session.flush()
        assert (caught.value.model, caught.value.key) == ("Thing", (1,))
        await session.rollback()


@pytest.mark.parametrize("how", ["merge", "merge as a member", "bulk_save_objects"])
async def test_an_expunged_object_that_is_merged_is_not_written(shop_cluster: LocalCluster, how: str) -> None:
    """INVARIANT: a merge writes all attributes of the object over newer ones of the primary."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        owner = await session.get_one(Owner, 1, options=[selectinload(Owner.items)])
        await session.close()
        item = owner.items[0]
        item.amount += 1
        if how == "bulk_save_objects":
            write = session.run_sync(lambda sync: sync.bulk_save_objects([item]))
        else:
            await session.merge(item if how == "merge" else owner)
            write = session.flush()
        with pytest.raises(StaleWriteError) as caught:
            await write
        assert (caught.value.model, caught.value.key) == ("Thing", (1,))
        await session.rollback()


async def test_an_object_merged_after_its_row_was_deleted_is_new(shop_cluster: LocalCluster) -> None:
    """As in SQLAlchemy: there is no row to overwrite."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        thing = await session.get_one(Thing, 1)
        await session.close()
        await session.execute(delete(Thing).where(Thing.id == 1))
        merged = await session.merge(thing)
        await session.flush()
        assert merged.amount == 10
        await session.rollback()


async def test_an_object_merged_from_outside_may_be_written(shop_cluster: LocalCluster) -> None:
    """For example the body of a request, which defines the new state of the row."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        await session.merge(Item(id=1, amount=11))
        await session.flush()
        await session.rollback()


async def test_rows_that_are_read_late_are_still_the_replicas(shop_cluster: LocalCluster) -> None:
    """INVARIANT: synchronous code may fetch a result after the unit of work has moved."""

    def read_late(session: Session) -> None:
        items = iter(session.scalars(select(Low).where(Low.id.in_([10, 11]))))
        session.execute(text("SELECT 1").execution_options(use_primary=True))
        for item in items:
            item.amount += 1
        session.flush()

    async with serving(shop_cluster) as servers, servers.session() as session:
        with pytest.raises(StaleWriteError):
            await session.run_sync(read_late)
        await session.rollback()


async def test_an_object_of_another_database_is_not_this_replicas(shop_cluster: LocalCluster) -> None:
    """A session may be bound to several databases."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        session.sync_session.bind_mapper(Thing, servers.primary.sync_engine)
        thing = await session.get_one(Thing, 1)
        thing.amount += 1
        await session.flush()
        await session.rollback()


async def test_locking_a_row_that_the_session_holds_gives_the_primarys(disposable_shop: LocalCluster) -> None:
    """INVARIANT: other code has read the object from the replica; a locked object has the primary's state."""
    for replica in disposable_shop.replicas:
        replica.pause_replay()
    async with serving(disposable_shop) as servers:
        for key, lock in ((1, "get"), (2, "select")):
            disposable_shop.primary.execute(f"UPDATE item SET amount = 500 WHERE id = {key}")  # noqa: S608  # a number
            async with servers.session() as session:
                item = await session.get_one(Item, key)
                assert item.amount == key * 10
                if lock == "get":
                    await session.get_one(Item, key, with_for_update=True)
                else:
                    await session.scalars(select(Item).where(Item.id == key).with_for_update())
                assert item.amount == 500
                item.amount += 1
                await session.flush()
                await session.rollback()


async def test_a_deferred_column_that_was_not_loaded_cannot_be_stale(shop_cluster: LocalCluster) -> None:
    """It is loaded from the primary when it is accessed."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        item = await session.get_one(Lazy, 1)
        await leave(session)
        session.expire(item)
        await item.awaitable_attrs.amount
        item.amount += 1
        await session.flush()
        await session.rollback()


async def test_deleting_a_stale_object_is_refused_too(shop_cluster: LocalCluster) -> None:
    """The reason for the deletion may no longer hold."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        await session.delete(await session.get_one(Item, 1))
        with pytest.raises(StaleWriteError):
            await session.flush()
        await session.rollback()
        assert await amount_on_primary(servers) == 10


@pytest.mark.parametrize("how", ["refresh", "for update", "populate_existing", "expire"])
async def test_an_object_refreshed_from_the_primary_may_be_written(shop_cluster: LocalCluster, how: str) -> None:
    """The remedy that the error names, and equivalent ways."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        item = await session.get_one(Item, 1)
        if how == "for update":
            await session.refresh(item, with_for_update=True)
        else:
            await session.execute(text("SELECT 1").execution_options(use_primary=True))
        if how == "refresh":
            await session.refresh(item)
        elif how == "populate_existing":
            await session.get_one(Item, 1, populate_existing=True)
        elif how == "expire":
            session.expire(item)
            await item.awaitable_attrs.amount

        item.amount += 1
        await session.flush()

        assert item.amount == 11
        await session.rollback()


@pytest.mark.parametrize("how", ["refresh", "expire", "one after the other"])
async def test_a_column_that_was_refreshed_from_the_primary_may_be_written(
    shop_cluster: LocalCluster, how: str
) -> None:
    """An UPDATE writes only the changed columns."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        item = await session.get_one(Item, 1)
        await session.execute(text("SELECT 1").execution_options(use_primary=True))
        if how == "refresh":
            await session.refresh(item, ["amount"])
        elif how == "expire":
            session.expire(item, ["amount"])
            await item.awaitable_attrs.amount
        else:
            for name in ("shop_id", "amount"):
                await session.refresh(item, [name])
        item.amount += 1
        await session.flush()
        if how == "refresh":
            item.shop_id = 2
            with pytest.raises(StaleWriteError):
                await session.flush()
        await session.rollback()


async def test_a_row_is_deleted_by_its_key_with_a_statement(shop_cluster: LocalCluster) -> None:
    """`delete(item)` is refused if only a replica returned the item: the reason for the deletion may no longer hold."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        item = await session.get_one(Item, 1)
        await session.delete(item)
        with pytest.raises(StaleWriteError, match=r"declared a read: declare a write"):
            await session.flush()
        await session.rollback()
        deleted = await session.execute(delete(Item).where(Item.id == 1, Item.amount == 10))
        assert typing.cast(typing.Any, deleted).rowcount == 1
        await session.rollback()


async def test_a_partly_refreshed_object_is_still_stale(shop_cluster: LocalCluster) -> None:
    """INVARIANT: attributes that were not refreshed could still be lost."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        item = await session.get_one(Item, 1)
        await session.execute(text("SELECT 1").execution_options(use_primary=True))
        await session.refresh(item, ["shop_id"])
        item.amount += 1
        with pytest.raises(StaleWriteError):
            await session.flush()
        await session.rollback()


async def test_an_object_whose_row_is_gone_leaves_the_session(shop_cluster: LocalCluster) -> None:
    """A missing row is not a write: `get()` returns None, as in an ordinary session."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        item = await session.get_one(Item, 1)
        session.expire_all()
        await session.execute(delete(Item).where(Item.id == 1))

        assert await session.get(Item, 1) is None
        assert sqlalchemy.inspect(item).deleted
        await session.rollback()


async def test_new_objects_and_bulk_statements_are_not_affected(shop_cluster: LocalCluster) -> None:
    """They do not come from a replica; an unchanged object in the session is no risk."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        held = await session.get_one(Item, 1)
        session.add(Item(id=901, shop_id=1, amount=1))
        await session.flush()
        await session.execute(update(Item).where(Item.id == 2).values(amount=5))
        created = await session.get_one(Item, 901)
        created.amount = 2
        loaded_after = await session.get_one(Item, 3)
        loaded_after.amount = 3
        await session.flush()
        assert held.amount == 10
        await session.rollback()


async def test_an_object_loaded_by_another_session_is_not_checked(
    shop_cluster: LocalCluster,
) -> None:
    """It was attached from another session; this session's replica did not return it."""
    async with serving(shop_cluster) as servers:
        async with RoutedSession(servers.primary, expire_on_commit=False) as loader:
            item = await loader.get_one(Item, 1)
        async with servers.session() as session:
            session.add(item)
            item.amount += 1
            await session.flush()
            await session.rollback()


async def test_where_writes_raise_a_flush_raises_that(shop_cluster: LocalCluster) -> None:
    """The missing marker is the cause, so its error takes precedence."""
    async with serving(shop_cluster, on_write="raise") as servers, servers.session() as session:
        (await session.get_one(Item, 1)).amount += 1
        with pytest.raises(ReplicasError, match="write-on-replica-error"):
            await session.flush()
        await session.rollback()


@pytest.mark.parametrize("synchronize", ["auto", "fetch", False])
async def test_an_update_reloads_objects_of_the_replica_from_the_primary(
    disposable_shop: LocalCluster, synchronize: typing.Any
) -> None:
    """INVARIANT: SQLAlchemy computes the new value from the object's value, which may differ from every row."""
    async with serving(disposable_shop) as servers, servers.session() as session:
        replicas = disposable_shop.replicas
        for replica in replicas:
            replica.pause_replay()
        disposable_shop.primary.execute("UPDATE item SET amount = 500")
        item = await session.get_one(Item, 1)
        held = item.amount
        added = update(Item).where(Item.id == 1).values(amount=Item.amount + 1)
        await session.execute(added, execution_options={"synchronize_session": synchronize})
        assert item.amount == (held if synchronize is False else 501)
        table = typing.cast(Table, Item.__table__)
        await session.execute(update(table).where(table.c.id == 1).values(amount=502))
        assert item.amount == (held if synchronize is False else 501), "Core tells the objects nothing"
        await session.rollback()
        for replica in replicas:
            replica.resume_replay()

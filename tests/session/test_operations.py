"""Every kind of statement and operation of a session, in each isolation and both modes, listed in a table."""

import collections.abc
import contextlib
import dataclasses
import enum
import typing

import pytest
import pytest_asyncio
import sqlalchemy.exc
from sqlalchemy import (
    Integer,
    column,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    text,
    union_all,
    update,
    values,
)
from sqlalchemy.orm import Session, aliased, joinedload, selectinload

from modern_di_replicas import RoutedSession, WriteOnReplicaError
from modern_di_replicas.testing import LocalCluster
from tests.driver import DRIVER
from tests.session.conftest import Servers, serving
from tests.session.models import Account, Base, Item, Shop, numbers


class Ends(enum.Enum):
    """The server of a unit of work after the operation."""

    READS = "on its replica"
    WRITES = "on the primary, or in WriteOnReplicaError where writes are to raise"
    MOVES = "on the primary, also where writes are to raise: nothing was written"
    SETS = "on its replica in a transaction; on the primary in autocommit, where it would have no effect"


@dataclasses.dataclass(kw_only=True)
class Operation:
    run: "Run"
    gives: typing.Any
    ends: Ends


ISOLATIONS = ("AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ")
MODES = ("escalate", "raise")
OPERATIONS: dict[str, Operation] = {}


Run = collections.abc.Callable[[RoutedSession], collections.abc.Awaitable[typing.Any]]
RunT = typing.TypeVar("RunT", bound=Run)


def operation(ends: Ends, *, gives: typing.Any = None) -> collections.abc.Callable[[RunT], RunT]:
    def add(run: RunT) -> RunT:
        OPERATIONS[run.__name__] = Operation(run=run, gives=gives, ends=ends)
        return run

    return add


def sql(statement: typing.Any, ends: Ends, *, name: str, gives: typing.Any = None) -> None:
    """Add a statement that returns one value, or none."""

    async def run(session: RoutedSession) -> typing.Any:
        result = typing.cast(typing.Any, await session.execute(statement))
        return result.scalars().first() if getattr(result, "returns_rows", True) else None

    OPERATIONS[name] = Operation(run=run, gives=gives, ends=ends)


# Statements that read

first_item = select(Item.amount).where(Item.id == 1)
sql(first_item, Ends.READS, name="select", gives=10)
sql(select(func.count()).select_from(Item), Ends.READS, name="aggregate", gives=200)
sql(select(Item.__table__.c.amount).limit(1), Ends.READS, name="core select", gives=10)
sql(select(first_item.cte("c").c.amount), Ends.READS, name="select from a CTE", gives=10)
sql(select(first_item.scalar_subquery() + 1), Ends.READS, name="scalar subquery", gives=11)
sql(select(Shop.name).join(Shop.items).where(Item.id == 2), Ends.READS, name="join", gives="corner")
sql(select(Shop.name).where(exists().where(Item.shop_id == Shop.id)), Ends.READS, name="exists", gives="corner")
sql(union_all(select(literal(5)), select(literal(6))), Ends.READS, name="union", gives=5)
sql(select(values(column("n", Integer), name="v").data([(3,)])), Ends.READS, name="values", gives=3)
sql(text("SELECT amount FROM item WHERE id = :id").bindparams(id=3), Ends.READS, name="text select", gives=30)
sql(text("WITH c AS (SELECT 4 AS n) SELECT n FROM c"), Ends.READS, name="text CTE", gives=4)
sql(text("VALUES (8)"), Ends.READS, name="text values", gives=8)
sql(text("TABLE shop"), Ends.READS, name="text table", gives=1)
sql(text("SHOW transaction_read_only"), Ends.READS, name="text show", gives="on")
sql(
    text("SELECT 'INSERT INTO item FOR UPDATE'"),
    Ends.READS,
    name="a write in a string",
    gives="INSERT INTO item FOR UPDATE",
)
sql(text('SELECT 1 AS "UPDATE item SET"'), Ends.READS, name="a write in an identifier", gives=1)
sql(text("/* DELETE FROM item */ SELECT 2 -- nextval('numbers')"), Ends.READS, name="a write in a comment", gives=2)
sql(
    text("SELECT $$ UPDATE item SET amount = 1 $$"),
    Ends.READS,
    name="a write in a dollar quote",
    gives=" UPDATE item SET amount = 1 ",
)
sql(text("(SELECT 1) UNION ALL (SELECT 2)"), Ends.READS, name="parentheses in front", gives=1)

# Statements that write, detected by their text

sql(insert(Item).values(id=901, shop_id=1, amount=1), Ends.WRITES, name="ORM insert")
sql(
    insert(Item).values(id=901, shop_id=1, amount=1).returning(Item.amount),
    Ends.WRITES,
    name="ORM insert returning",
    gives=1,
)
sql(
    update(Item).where(Item.id == 1).values(amount=11).returning(Item.amount),
    Ends.WRITES,
    name="ORM update returning",
    gives=11,
)
sql(delete(Item).where(Item.id == 200), Ends.WRITES, name="ORM delete")
sql(update(Base.metadata.tables["item"]).values(amount=1), Ends.WRITES, name="core update")
sql(text("INSERT INTO shop VALUES (2, 'x')"), Ends.WRITES, name="text insert")
sql(text("-- a comment\nUPDATE item SET amount = 0"), Ends.WRITES, name="text update behind a comment")
sql(text("delete from item where id = 1"), Ends.WRITES, name="text delete in lower case")
sql(text("TRUNCATE account"), Ends.WRITES, name="text truncate")
sql(
    text("MERGE INTO account a USING shop s ON a.id = s.id WHEN MATCHED THEN DO NOTHING"),
    Ends.WRITES,
    name="text merge",
)
written = update(Item).where(Item.id == 1).values(amount=12).returning(Item.amount).cte("written")
sql(select(written.c.amount), Ends.WRITES, name="DML in a CTE", gives=12)
sql(
    text("WITH w AS (INSERT INTO shop VALUES (3, 'y') RETURNING id) SELECT id FROM w"),
    Ends.WRITES,
    name="text DML in a CTE",
    gives=3,
)
sql(
    text("WITH w AS (UPDATE ONLY item AS i SET amount = 5 WHERE id = 1 RETURNING id) SELECT id FROM w"),
    Ends.WRITES,
    name="text update in a CTE",
    gives=1,
)
sql(first_item.with_for_update(), Ends.WRITES, name="FOR UPDATE", gives=10)
sql(first_item.with_for_update(read=True, key_share=True), Ends.WRITES, name="FOR KEY SHARE", gives=10)
sql(select(first_item.with_for_update().subquery().c.amount), Ends.WRITES, name="FOR UPDATE in a subquery", gives=10)
sql(
    text("SELECT 1 FROM item WHERE id = 1 FOR NO KEY UPDATE SKIP LOCKED"),
    Ends.WRITES,
    name="text FOR NO KEY UPDATE",
    gives=1,
)
sql(select(numbers.next_value() > 0), Ends.WRITES, name="a sequence", gives=True)
sql(select(func.nextval("numbers") > 0), Ends.WRITES, name="nextval()", gives=True)
sql(text("SELECT pg_catalog.setval('numbers', 50)"), Ends.WRITES, name="text setval()", gives=50)
sql(select(func.pg_try_advisory_xact_lock(1)), Ends.WRITES, name="an advisory lock", gives=True)
sql(text("SELECT pg_advisory_xact_lock(1) IS NULL"), Ends.WRITES, name="text advisory lock", gives=False)
sql(text("SELECT pg_notify('c', 'm') IS NULL"), Ends.WRITES, name="pg_notify()", gives=False)
sql(text("LOCK TABLE item IN EXCLUSIVE MODE"), Ends.WRITES, name="LOCK")
sql(text("NOTIFY c"), Ends.WRITES, name="NOTIFY")
sql(text("LISTEN c"), Ends.WRITES, name="LISTEN")
sql(text("COPY item TO '/dev/null'"), Ends.WRITES, name="COPY")
sql(text("CALL restock()"), Ends.WRITES, name="CALL")
sql(text("DO $$ BEGIN PERFORM 1; END $$"), Ends.WRITES, name="DO")
sql(text("CREATE TEMPORARY TABLE t (n int) ON COMMIT DROP"), Ends.WRITES, name="a temporary table")
sql(text("EXPLAIN ANALYZE UPDATE account SET balance = 1"), Ends.WRITES, name="EXPLAIN ANALYZE of a write", gives=None)

# Statements that write, detected only by the server

sql(select(func.visit()), Ends.WRITES, name="a function that writes", gives=7)
sql(text("SELECT id INTO TEMPORARY copied FROM item"), Ends.WRITES, name="SELECT INTO")

# Statements that set something for later statements

sql(text("SET LOCAL work_mem = '5MB'"), Ends.SETS, name="SET LOCAL")
sql(select(func.set_config("app.tenant", "a", True)), Ends.SETS, name="set_config()", gives="a")

# Statements that name their server

sql(first_item.execution_options(use_primary=True), Ends.MOVES, name="use_primary", gives=10)


# Operations that read


@operation(Ends.READS, gives=10)
async def get(session: RoutedSession) -> int:
    item = await session.get(Item, 1)
    assert item is not None
    return item.amount


@operation(Ends.READS, gives=20)
async def get_one(session: RoutedSession) -> int:
    return (await session.get_one(Item, 2)).amount


@operation(Ends.READS, gives=[10, 20, 30])
async def scalars(session: RoutedSession) -> list[int]:
    return list(await session.scalars(select(Item.amount).order_by(Item.id).limit(3)))


@operation(Ends.READS, gives=10)
async def scalar(session: RoutedSession) -> int | None:
    return await session.scalar(first_item)


@operation(Ends.READS, gives=200)
async def select_in_load(session: RoutedSession) -> int:
    shop = await session.scalar(select(Shop).options(selectinload(Shop.items)))
    assert shop is not None
    return len(shop.items)


@operation(Ends.READS, gives="corner")
async def joined_load(session: RoutedSession) -> str:
    item = await session.scalar(select(Item).options(joinedload(Item.shop)).limit(1))
    assert item is not None
    return item.shop.name


@operation(Ends.READS, gives=200)
async def lazy_load_by_awaitable_attrs(session: RoutedSession) -> int:
    return len(await (await session.get_one(Shop, 1)).awaitable_attrs.items)


@operation(Ends.READS, gives=200)
async def lazy_load_in_run_sync(session: RoutedSession) -> int:
    return await session.run_sync(lambda sync: len(sync.get_one(Shop, 1).items))


@operation(Ends.READS, gives=10)
async def refresh(session: RoutedSession) -> int:
    item = await session.get_one(Item, 1)
    await session.refresh(item)
    return item.amount


@operation(Ends.READS, gives=10)
async def expire(session: RoutedSession) -> int:
    item = await session.get_one(Item, 1)
    session.expire(item)
    return typing.cast(int, await item.awaitable_attrs.amount)


@operation(Ends.READS, gives=200)
async def stream(session: RoutedSession) -> int:
    return len([row async for row in await session.stream(select(Item.id))])


@operation(Ends.READS, gives=200)
async def stream_scalars_in_partitions(session: RoutedSession) -> int:
    result = await session.stream_scalars(select(Item).execution_options(yield_per=30))
    return sum([len(part) async for part in result.partitions()])


@operation(Ends.READS, gives=(50, 10))
async def a_statement_while_streaming(session: RoutedSession) -> tuple[int, int | None]:
    rows = await session.stream(select(Item.id).order_by(Item.id))
    seen = [await anext(rows) for _ in range(50)]
    return len(seen), await session.scalar(first_item)


@operation(Ends.READS, gives=77)
async def schema_translate_map(session: RoutedSession) -> int | None:
    options = {"schema_translate_map": {None: "tenant"}}
    return await session.scalar(first_item, execution_options=options)


@operation(Ends.READS, gives=10)
async def begin_block(session: RoutedSession) -> int | None:
    async with session.begin():
        return await session.scalar(first_item)


@operation(Ends.READS, gives=(10, 10))
async def commit_and_read_on(session: RoutedSession) -> tuple[int | None, int | None]:
    before = await session.scalar(first_item)
    await session.commit()
    return before, await session.scalar(first_item)


@operation(Ends.READS, gives=(10, 10))
async def roll_back_and_read_on(session: RoutedSession) -> tuple[int | None, int | None]:
    before = await session.scalar(first_item)
    await session.rollback()
    return before, await session.scalar(first_item)


@operation(Ends.READS, gives=10)
async def no_autoflush(session: RoutedSession) -> int | None:
    with session.no_autoflush:
        session.add(Shop(id=9, name="never flushed"))
        amount = await session.scalar(first_item)
    session.expunge_all()
    return amount


@operation(Ends.READS, gives=10)
async def populate_existing(session: RoutedSession) -> int:
    await session.get_one(Item, 1)
    return (await session.get_one(Item, 1, populate_existing=True)).amount


@operation(Ends.READS, gives=10)
async def legacy_query(session: RoutedSession) -> int:
    return await session.run_sync(lambda sync: sync.query(Item).filter_by(id=1).one().amount)


@operation(Ends.READS, gives=20)
async def self_join(session: RoutedSession) -> int | None:
    other = aliased(Item)
    return await session.scalar(select(other.amount).join(Item, Item.id + 1 == other.id).where(Item.id == 1))


@operation(Ends.READS, gives="corner")
async def assign_what_it_is_already(session: RoutedSession) -> str:
    shop = await session.get_one(Shop, 1)
    return shop.name


# Operations that write


@operation(Ends.WRITES, gives=1)
async def add_and_commit(session: RoutedSession) -> int:
    session.add(Item(id=901, shop_id=1, amount=1))
    await session.flush()
    return (await session.get_one(Item, 901)).amount


@operation(Ends.WRITES, gives=201)
async def autoflush(session: RoutedSession) -> int | None:
    session.add(Item(id=901, shop_id=1, amount=1))
    return await session.scalar(select(func.count()).select_from(Item))


@operation(Ends.WRITES, gives=101)
async def modify_a_versioned_object(session: RoutedSession) -> int:
    account = await session.get_one(Account, 1)
    account.balance += 1
    await session.flush()
    return account.balance


@operation(Ends.WRITES, gives=None)
async def delete_a_versioned_object(session: RoutedSession) -> Account | None:
    await session.delete(await session.get_one(Account, 1))
    await session.flush()
    return await session.get(Account, 1)


@operation(Ends.WRITES, gives=7)
async def merge(session: RoutedSession) -> int:
    merged = await session.merge(Item(id=1, shop_id=1, amount=7))
    await session.flush()
    return merged.amount


@operation(Ends.WRITES, gives=10)
async def begin_nested(session: RoutedSession) -> int | None:
    async with session.begin_nested():
        return await session.scalar(first_item)


@operation(Ends.WRITES, gives=2)
async def executemany(session: RoutedSession) -> int:
    await session.execute(insert(Shop), [{"id": 2, "name": "b"}, {"id": 3, "name": "c"}])
    return len((await session.scalars(select(Shop).where(Shop.id > 1))).all())


@operation(Ends.WRITES, gives=10)
async def get_with_for_update(session: RoutedSession) -> int:
    return (await session.get_one(Item, 1, with_for_update=True)).amount


@operation(Ends.WRITES, gives=10)
async def refresh_with_for_update(session: RoutedSession) -> int:
    item = await session.get_one(Item, 1)
    await session.refresh(item, with_for_update=True)
    return item.amount


@operation(Ends.WRITES, gives="b")
async def bulk_save_objects(session: RoutedSession) -> str:
    await session.run_sync(lambda sync: sync.bulk_save_objects([Shop(id=2, name="b")]))
    return (await session.get_one(Shop, 2)).name


@operation(Ends.WRITES, gives="b")
async def bulk_insert_mappings(session: RoutedSession) -> str:
    await session.run_sync(lambda sync: sync.bulk_insert_mappings(Shop, [{"id": 2, "name": "b"}]))
    return (await session.get_one(Shop, 2)).name


@operation(Ends.WRITES, gives="b")
async def bulk_update_mappings(session: RoutedSession) -> str:
    await session.run_sync(lambda sync: sync.bulk_update_mappings(Shop, [{"id": 1, "name": "b"}]))
    return (await session.get_one(Shop, 1)).name


@operation(Ends.WRITES, gives=1)
async def stream_of_a_write(session: RoutedSession) -> int:
    rows = await session.stream(update(Item).where(Item.id == 1).values(amount=1).returning(Item.amount))
    return (await rows.scalars().all())[0]


# Operations that can neither be foreseen nor run again


@operation(Ends.MOVES, gives=10)
async def connection(session: RoutedSession) -> int | None:
    return typing.cast(int, await (await session.connection()).scalar(first_item))


@operation(Ends.MOVES, gives=10)
async def connection_in_run_sync(session: RoutedSession) -> int:
    def read(sync: Session) -> int:
        return typing.cast(int, sync.connection().scalar(first_item))

    return await session.run_sync(read)


@operation(Ends.MOVES, gives=10)
async def use_primary_for_get(session: RoutedSession) -> int:
    return (await session.get_one(Item, 1, execution_options={"use_primary": True})).amount


@operation(Ends.MOVES, gives="22012")
async def a_statement_that_is_wrong(session: RoutedSession) -> str | None:
    with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
        await session.execute(text("SELECT 1 / (amount - amount) FROM item"))
    await session.rollback()
    return typing.cast(str, getattr(caught.value.orig, "sqlstate", None))


Modes = dict[tuple[str, str], Servers]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def modes(shop_cluster: LocalCluster) -> collections.abc.AsyncIterator[Modes]:
    """Yield the servers in each isolation and mode, with pools that one leaked connection would exhaust."""
    async with contextlib.AsyncExitStack() as stack:
        yield {
            (isolation, on_write): await stack.enter_async_context(
                serving(
                    shop_cluster,
                    read_isolation=isolation,
                    on_write=on_write,
                    replica_pool_size=2,
                    replica_max_overflow=0,
                    primary_pool_size=1,
                    primary_max_overflow=0,
                    primary_pool_timeout=1,
                )
            )
            for isolation in ISOLATIONS
            for on_write in MODES
        }


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("on_write", MODES)
@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_operation_ends_where_it_should_with_the_right_result(
    modes: Modes, name: str, isolation: str, on_write: str
) -> None:
    """The server itself reports where the unit of work ended; every change is rolled back."""
    wanted = OPERATIONS[name]
    if DRIVER == "psycopg" and name == "stream_of_a_write":
        pytest.skip("psycopg declares a cursor for a stream, which no write can have")
    servers = modes[isolation, on_write]
    async with servers.session() as session:
        if wanted.ends is Ends.WRITES and on_write == "raise":
            with pytest.raises(WriteOnReplicaError) as caught:
                await wanted.run(session)
            assert caught.value.endpoint == "shop.show"
            session.expunge_all()
            await session.rollback()
        else:
            given = await wanted.run(session)
            assert given == wanted.gives or name.startswith("EXPLAIN")  # whose text comes from PostgreSQL

        on_replica = (
            wanted.ends is Ends.READS
            or (wanted.ends is Ends.WRITES and on_write == "raise")
            or (wanted.ends is Ends.SETS and isolation != "AUTOCOMMIT")
        )
        assert (await session.scalar(text("SELECT pg_is_in_recovery()"))) is on_replica
        assert (session.decision.server != "primary") is on_replica
        await session.rollback()
    assert servers.checked_out() == 0


def test_the_table_is_complete() -> None:
    """At least forty kinds."""
    assert len(OPERATIONS) >= 40

"""Options of sessions, statements and intents, on a replica as on the primary."""

import asyncio
import collections.abc
import contextlib
import typing

import pytest
import sqlalchemy
from sqlalchemy import event, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import ORMExecuteState, Session

from modern_di_replicas import Cause, Intent, PrimaryEngine, RoutedSession, use_primary
from modern_di_replicas.intent import is_primary_declared
from modern_di_replicas.testing import LocalCluster
from tests.pgbouncer import AUTOCOMMIT, not_behind_a_pooler
from tests.session.conftest import Servers, serving
from tests.session.models import Item, Shop


AMOUNTS = select(Item.amount).where(Item.id <= 20).order_by(Item.id)
EXPECTED = [n * 10 for n in range(1, 21)]
IN_RECOVERY = text("SELECT pg_is_in_recovery()")
ISOLATION = text("SHOW transaction_isolation")
SINCE = text("SELECT now()")


def engines(servers: Servers) -> list[AsyncEngine]:
    return [servers.primary, servers.replica]


def by_query(session: AsyncSession) -> collections.abc.Awaitable[list[int]]:
    return session.run_sync(
        lambda sync: [row.amount for row in sync.query(Item).filter(Item.id <= 20).order_by(Item.id).yield_per(7)]
    )


def by_handler(session: AsyncSession) -> collections.abc.Awaitable[list[int]]:
    def set_option(state: ORMExecuteState) -> None:
        state.update_execution_options(yield_per=7)

    event.listen(session.sync_session, "do_orm_execute", set_option)
    return session.run_sync(lambda sync: list(sync.scalars(AMOUNTS)))


def by_statement(session: AsyncSession) -> collections.abc.Awaitable[list[int]]:
    return session.run_sync(lambda sync: list(sync.scalars(AMOUNTS.execution_options(yield_per=7))))


@pytest.mark.parametrize("isolation", ["AUTOCOMMIT", "READ COMMITTED"])
@pytest.mark.parametrize("ask", [by_query, by_handler, by_statement])
async def test_rows_one_by_one_are_read_where_all_else_is(
    shop_cluster: LocalCluster, isolation: str, ask: typing.Any
) -> None:
    """INVARIANT: independent of how streaming is requested; the replica has no open transaction for a cursor."""
    async with serving(shop_cluster, read_isolation=isolation) as servers:
        for engine in engines(servers):
            async with RoutedSession(engine, intent=Intent.read()) as session:
                assert await ask(session) == EXPECTED
                assert await session.scalar(IN_RECOVERY) is (engine is servers.replica)


@pytest.mark.parametrize("option", [{"yield_per": 7}, {"stream_results": True}])
async def test_an_engine_may_ask_for_rows_one_by_one(shop_cluster: LocalCluster, option: dict[str, typing.Any]) -> None:
    """As an option of all its statements."""
    async with serving(shop_cluster) as servers:
        for engine in engines(servers):
            async with RoutedSession(engine.execution_options(**option), intent=Intent.read()) as session:
                assert await session.run_sync(lambda sync: list(sync.scalars(AMOUNTS))) == EXPECTED
                assert [one async for one in await session.stream_scalars(AMOUNTS)] == EXPECTED
                assert (session.decision.server != "primary") is (engine is servers.replica)


@pytest.mark.skipif(sqlalchemy.__version__ < "2.1", reason="SQLAlchemy 2.0 has no execution options of a session")
async def test_a_session_may_ask_for_rows_one_by_one(shop_cluster: LocalCluster) -> None:
    """As an option of all its statements."""
    async with serving(shop_cluster) as servers:
        for engine in engines(servers):
            async with RoutedSession(engine, intent=Intent.read(), execution_options={"yield_per": 7}) as session:
                assert await session.run_sync(lambda sync: list(sync.scalars(AMOUNTS))) == EXPECTED
                assert (session.decision.server != "primary") is (engine is servers.replica)


# Isolation of one unit of work


@not_behind_a_pooler(AUTOCOMMIT, driver="asyncpg")
@pytest.mark.parametrize("settings", ["AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ"])
@pytest.mark.parametrize("asked", ["AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ"])
async def test_one_unit_of_work_has_the_isolation_it_asks_for(
    shop_cluster: LocalCluster, settings: str, asked: typing.Any
) -> None:
    """INVARIANT: others keep the isolation of the settings on the same pooled connection."""
    async with serving(shop_cluster, read_isolation=settings, replicas=[shop_cluster.replicas[0].url]) as servers:
        for intent, isolation in ((Intent.read(isolation=asked), asked), (Intent.read(), settings)) * 2:
            async with servers.session(intent=intent) as session:
                first, second = [await session.scalar(SINCE) for _ in range(2)]
                assert (first == second) is (isolation != "AUTOCOMMIT")
                level = "read committed" if isolation == "AUTOCOMMIT" else isolation.lower()
                assert await session.scalar(ISOLATION) == level
                assert [one async for one in await session.stream_scalars(AMOUNTS)] == EXPECTED
                assert session.decision.server != "primary"


async def test_the_primary_serves_such_a_read_in_the_same_isolation(shop_cluster: LocalCluster) -> None:
    """From the start and after an escalation; a snapshot only on replicas would not be reliable."""
    intent = Intent.read(isolation="REPEATABLE READ")
    async with serving(shop_cluster) as servers:
        async with RoutedSession(servers.primary, intent=intent) as session:
            assert await session.scalar(ISOLATION) == "repeatable read"
        async with servers.session(intent=intent) as session:
            await session.connection()
            assert await session.scalar(ISOLATION) == "repeatable read"
        async with RoutedSession(servers.primary, intent=Intent.read(isolation="AUTOCOMMIT")) as session:
            first, second = [await session.scalar(SINCE) for _ in range(2)]
            assert first == second


async def test_a_setting_of_one_unit_of_work_holds_for_all_its_statements(shop_cluster: LocalCluster) -> None:
    """Row-level security is set this way; the setting does not remain on the pooled connection."""
    tenant = text("SELECT current_setting('app.tenant', true)")
    intent = Intent.read(isolation="READ COMMITTED")
    async with serving(shop_cluster, replicas=[shop_cluster.replicas[0].url]) as servers:
        async with servers.session(intent=intent) as session:

            @event.listens_for(session.sync_session, "after_begin")
            def set_tenant(sync: Session, transaction: object, connection: typing.Any) -> None:  # noqa: ARG001  # the event's signature
                connection.execute(text("SET LOCAL app.tenant = 'a'"))

            assert await session.scalar(tenant) == "a"
            assert await session.scalar(tenant) == "a"
            assert session.decision.server != "primary"
            session.add(Shop(id=2, name="b"))
            await session.flush()
            assert await session.scalar(tenant) == "a"
            assert session.decision.server == "primary"
            await session.rollback()
        async with servers.session() as session:
            assert not await session.scalar(tenant)


# Blocks of the primary


async def test_statements_in_the_block_run_on_the_primary(shop_cluster: LocalCluster) -> None:
    """INVARIANT: a session used in it stays on the primary; other sessions read from replicas afterwards."""
    async with (
        serving(shop_cluster, on_write="raise") as servers,
        servers.session() as inside,
        servers.session() as outside,
    ):
        item = await inside.get_one(Item, 1)
        with use_primary():
            assert await inside.scalar(IN_RECOVERY) is False
            assert await inside.get_one(Item, 1) is item
        assert inside.decision.cause is Cause.USE_PRIMARY
        assert inside.decision.reason == "GET, escalated: use_primary()"
        assert await inside.scalar(IN_RECOVERY) is False
        assert await outside.scalar(IN_RECOVERY) is True


async def test_a_get_in_the_block_reloads_its_object(shop_cluster: LocalCluster) -> None:
    """The session's object from the replica may be stale."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        item = await session.get_one(Item, 1)
        with use_primary():
            assert await session.get(Item, 1) is item
        item.amount += 0
        item.amount = 11
        await session.flush()  # it is from the primary now
        await session.rollback()


async def test_choices_inside_the_block_are_the_primary(shop_cluster: LocalCluster) -> None:
    """An engine for a unit of work, and a connection of all replicas."""
    async with serving(shop_cluster) as servers:
        with use_primary():
            chosen = servers.replica.choose()
            async with servers.replica.connect() as connection:
                assert await connection.scalar(IN_RECOVERY) is False
        assert isinstance(chosen, PrimaryEngine)
        assert chosen.decision.cause is Cause.USE_PRIMARY
        async with servers.replica.connect() as connection:
            assert await connection.scalar(IN_RECOVERY) is True


async def test_the_block_does_not_leak() -> None:
    """INVARIANT: not into other tasks, not after an error, not into a task that outlives it."""
    ended = asyncio.Event()

    async def outlive() -> tuple[bool, bool]:
        inside = is_primary_declared()
        await ended.wait()
        return inside, is_primary_declared()

    before = asyncio.ensure_future(outlive())
    with contextlib.suppress(KeyError), use_primary():
        with use_primary():
            assert is_primary_declared()
        assert is_primary_declared()
        during = asyncio.ensure_future(outlive())
        await asyncio.sleep(0)
        raise KeyError
    assert not is_primary_declared()
    ended.set()
    assert await before == (False, False)
    assert await during == (True, False)


async def test_a_block_that_ends_in_another_context_holds_no_longer() -> None:
    """For example that of a generator, which a framework closes in another task."""

    async def dependency() -> collections.abc.AsyncIterator[bool]:
        with use_primary():
            yield is_primary_declared()

    generator = dependency()

    async def begin() -> bool:
        return await anext(generator)

    assert await asyncio.create_task(begin())
    with pytest.raises(StopAsyncIteration):
        await anext(generator)
    assert not is_primary_declared()

"""A session's calls are run in greenlets that are used again, and are what they were."""

import collections.abc
import functools
import typing

import pytest
import sqlalchemy
from greenlet import getcurrent
from sqlalchemy import event, func, select, text, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction
from sqlalchemy.ext.asyncio.exc import AsyncMethodRequired
from sqlalchemy.orm import ORMExecuteState, selectinload

from modern_di_replicas import Intent, RoutedSession
from modern_di_replicas.light_session import LightSession
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import Servers, serving
from tests.session.models import Account, Item, Shop, numbers


SHOPS = select(Shop).options(selectinload(Shop.items))
STREAMS: typing.Final[dict[str, collections.abc.Callable[[RoutedSession], collections.abc.Awaitable[object]]]] = {
    "the statement": lambda session: session.execute(SHOPS.execution_options(stream_results=True)),
    "the call": lambda session: session.execute(SHOPS, execution_options={"yield_per": 1}),
    "scalars": lambda session: session.scalars(SHOPS, execution_options={"stream_results": True}),
}


def writing(servers: Servers) -> RoutedSession:
    return RoutedSession(servers.primary, intent=Intent.write(), expire_on_commit=False)


def note_greenlet(used: list[object], *_: object, **__: object) -> None:
    used.append(getcurrent())


async def test_every_call_of_a_session_uses_the_same_greenlet(shop_cluster: LocalCluster) -> None:
    """INVARIANT: none is made for a call, in a session that reads as in one that writes."""
    async with serving(shop_cluster) as servers:
        for session in (servers.session(), writing(servers)):
            used: list[object] = []
            for moment in ("do_orm_execute", "after_begin", "before_commit", "before_flush"):
                event.listen(session.sync_session, moment, functools.partial(note_greenlet, used))

            account = await session.get_one(Account, 1)
            await session.get(Item, 2)
            await session.scalar(select(Item.amount))
            await session.execute(SHOPS)
            await session.scalars(SHOPS)
            await session.refresh(account)
            account.balance += 1
            await session.flush()
            await session.rollback()
            await session.scalar(select(Item.amount))
            await session.commit()
            await session.scalar(select(Item.amount))
            await session.close()

            assert len(used) > 12
            assert len(set(used)) == 1


async def test_a_result_is_read_without_a_greenlet(shop_cluster: LocalCluster) -> None:
    """Whatever the ORM loads along is there before the result is handed out."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        for result in (await session.execute(SHOPS), await session.execute(SHOPS, execution_options={"mine": 1})):
            assert len(result.scalar_one().items) == 200
        assert len((await session.scalars(SHOPS)).one().items) == 200
        by_name = await session.execute(text("SELECT amount FROM item WHERE id = :id"), {"id": 3})
        assert by_name.mappings().one() == {"amount": 30}


async def test_what_is_no_row_is_handed_out_as_it_is(shop_cluster: LocalCluster) -> None:
    """A count, a number of a sequence, and an error for what cannot be executed."""
    async with serving(shop_cluster) as servers, writing(servers) as session:
        updated = await session.execute(update(Item).where(Item.id < 4).values(amount=Item.amount))
        assert isinstance(updated, CursorResult)
        assert updated.rowcount == 3
        await session.rollback()
        number = await session.scalar(select(func.nextval(numbers.name)))
        assert await session.scalar(numbers) == typing.cast(int, number) + 1
        with pytest.raises(ArgumentError):
            await session.execute(typing.cast(typing.Any, "SELECT 1"))


@pytest.mark.parametrize("streams", STREAMS)
async def test_what_would_stream_is_still_refused(shop_cluster: LocalCluster, streams: str) -> None:
    """Rows that come one by one need `stream()`; read from a result they would fail far from here."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        with pytest.raises(AsyncMethodRequired):
            await STREAMS[streams](session)


@pytest.mark.skipif(sqlalchemy.__version__ < "2.1", reason="SQLAlchemy 2.0 has no execution options of a session")
async def test_a_session_that_streams_always_is_refused_too(shop_cluster: LocalCluster) -> None:
    """By the same rule."""
    options = {"execution_options": {"stream_results": True}}
    async with serving(shop_cluster) as servers, servers.session(**options) as session:
        with pytest.raises(AsyncMethodRequired):
            await session.execute(SHOPS)


async def test_so_is_one_on_an_engine_or_a_connection_that_streams_and_after_a_listener(
    shop_cluster: LocalCluster,
) -> None:
    """Wherever it was asked for; the connection comes back all the same."""

    def stream(state: ORMExecuteState) -> None:
        state.update_execution_options(stream_results=True)

    async with serving(shop_cluster) as servers:
        streaming = servers.primary.execution_options(stream_results=True)
        async with RoutedSession(streaming, intent=Intent.write()) as on_engine:
            for statement in (SHOPS, text("SELECT 1")):
                with pytest.raises(AsyncMethodRequired, match="stream"):
                    await on_engine.execute(statement)
        async with writing(servers) as on_connection:
            await on_connection.connection(execution_options={"stream_results": True})
            with pytest.raises(AsyncMethodRequired):
                await on_connection.execute(SHOPS)
        async with writing(servers) as listening:
            event.listen(listening.sync_session, "do_orm_execute", stream)
            with pytest.raises(AsyncMethodRequired):
                await listening.execute(SHOPS)


def test_to_a_type_checker_and_a_reader_it_is_an_async_session() -> None:
    """The methods keep their names and their documentation."""
    for name in ("get", "get_one", "scalar", "flush", "refresh", "commit", "rollback", "close", "execute"):
        ours, original = getattr(LightSession, name), getattr(AsyncSession, name)
        assert ours is not original
        assert (ours.__name__, ours.__doc__) == (original.__name__, original.__doc__)


async def test_a_transaction_as_a_context_still_ends_the_session_it_is_of(shop_cluster: LocalCluster) -> None:
    """`session.begin()` goes another way than `commit()`."""
    async with serving(shop_cluster) as servers, writing(servers) as session:
        async with session.begin() as transaction:
            assert isinstance(transaction, AsyncSessionTransaction)
            await session.execute(update(Account).values(balance=Account.balance))
        assert not session.in_transaction()

"""Session classes of the application, on both servers."""

import functools
import typing

import pytest
from sqlalchemy import Connection, Engine, event, select, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import ORMExecuteState, Session, sessionmaker, with_loader_criteria

from modern_di_replicas import ConfigurationError, Intent, RoutedSession, create_session
from modern_di_replicas.session.replica import ReplicaSession
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import Servers, serving
from tests.session.models import Account, Item


IN_RECOVERY = text("SELECT pg_is_in_recovery()")


class TenantSession(Session):
    """Shows only the first items, and has an additional method and argument."""

    def __init__(self, bind: typing.Any = None, *, largest: int = 20, **options: typing.Any) -> None:
        super().__init__(bind, **options)
        self.largest = largest

    def execute(self, statement: typing.Any, *args: typing.Any, **options: typing.Any) -> typing.Any:
        return super().execute(statement.options(self._filter()), *args, **options)

    def scalars(self, statement: typing.Any, *args: typing.Any, **options: typing.Any) -> typing.Any:
        return super().scalars(statement.options(self._filter()), *args, **options)

    def amounts(self) -> list[int]:
        return list(self.scalars(select(Item.amount).order_by(Item.id)).all())

    def _filter(self) -> typing.Any:
        return with_loader_criteria(Item, Item.amount <= self.largest)


class ByAttribute(RoutedSession):
    sync_session_class = TenantSession


def amounts(session: Session) -> list[int]:
    assert isinstance(session, TenantSession)
    return session.amounts()


def make_session(**options: typing.Any) -> Session:
    return TenantSession(**options)


def by_keyword(engine: AsyncEngine, **options: typing.Any) -> RoutedSession:
    return RoutedSession(engine, sync_session_class=TenantSession, **options)


def by_partial(engine: AsyncEngine, **options: typing.Any) -> RoutedSession:
    return RoutedSession(engine, sync_session_class=functools.partial(TenantSession, largest=20), **options)


def by_factory(engine: AsyncEngine, **options: typing.Any) -> RoutedSession:
    return async_sessionmaker(engine, class_=RoutedSession, sync_session_class=TenantSession)(**options)


def by_provider(engine: AsyncEngine, **options: typing.Any) -> AsyncSession:
    intent = options.pop("intent", Intent.read())
    primary: typing.Any = None
    return create_session(engine, primary, intent, session_class=ByAttribute, **options)


def engines(servers: Servers) -> list[AsyncEngine]:
    return [servers.primary, servers.replica]


@pytest.mark.parametrize("make", [ByAttribute, by_keyword, by_partial, by_factory, by_provider])
async def test_a_class_of_the_application_does_the_same_on_both_servers(
    shop_cluster: LocalCluster, make: typing.Any
) -> None:
    """INVARIANT: its filter, method and argument apply; without the filter a replica would expose all tenants."""
    async with serving(shop_cluster) as servers:
        for engine in engines(servers):
            async with make(engine) as session:
                assert await session.run_sync(amounts) == [10, 20]
                assert (await session.execute(select(Item.amount).order_by(Item.id))).scalars().all() == [10, 20]
                assert await session.scalar(IN_RECOVERY) is (engine is servers.replica)
            async with make(engine, **({} if make is by_partial else {"largest": 30})) as session:
                assert len(await session.run_sync(amounts)) == (2 if make is by_partial else 3)


async def test_a_filter_of_the_application_holds_for_a_read_by_key(shop_cluster: LocalCluster) -> None:
    """INVARIANT: SQLAlchemy's `get()` calls `execute()`, so a tenant cannot read another's row by its key."""
    async with serving(shop_cluster) as servers:
        for engine in engines(servers):
            async with ByAttribute(engine) as session:
                assert await session.get(Item, 1) is not None
                assert await session.get(Item, 3) is None


async def test_a_class_of_the_application_is_escalated_as_ours(shop_cluster: LocalCluster) -> None:
    """It writes on the primary, and reads there afterwards."""
    async with serving(shop_cluster) as servers, ByAttribute(servers.replica, intent=Intent.read()) as session:
        assert await session.run_sync(amounts) == [10, 20]
        session.add(Item(id=902, shop_id=1, amount=1))
        await session.flush()
        assert session.decision.server == "primary"
        assert 1 in await session.run_sync(amounts)
        await session.rollback()


async def test_a_combination_is_made_once_for_each_class(shop_cluster: LocalCluster) -> None:
    """A new class per request would cost milliseconds, and never be freed."""
    async with serving(shop_cluster) as servers:
        for engine in engines(servers):
            first, second = ByAttribute(engine), by_keyword(engine)
            assert type(first.sync_session) is type(second.sync_session)
            assert isinstance(first.sync_session, TenantSession)
            assert first.sync_session_class is second.sync_session_class is TenantSession
        assert RoutedSession(servers.replica, sync_session_class=ReplicaSession).sync_session_class is ReplicaSession

        class Late(ReplicaSession): ...

        assert type(RoutedSession(servers.replica, sync_session_class=Late).sync_session) is Late


@pytest.mark.parametrize("own", [sessionmaker(), make_session, int])
async def test_a_session_class_that_is_not_a_class_is_refused_on_both_servers(
    shop_cluster: LocalCluster, own: object
) -> None:
    """Routing cannot be added to its sessions; it would work on one server and be ignored on the other."""
    async with serving(shop_cluster) as servers:
        for engine in engines(servers):
            with pytest.raises(ConfigurationError) as caught:
                RoutedSession(engine, sync_session_class=typing.cast(typing.Any, own))
            assert caught.value.field == "sync_session_class"


async def test_a_get_bind_of_the_application_has_chosen(shop_cluster: LocalCluster) -> None:
    """INVARIANT: a statement that it sends elsewhere runs there once, and its errors eject no replica."""
    refused: list[object] = []
    nowhere = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")

    class Partitioned(Session):
        def get_bind(self, mapper: typing.Any = None, **options: typing.Any) -> Engine | Connection:
            if mapper is not None and mapper.class_ is Account:
                refused.append(mapper)
                return nowhere.sync_engine
            return super().get_bind(mapper, **options)

    async with serving(shop_cluster) as servers:
        for engine in engines(servers):
            refused.clear()
            async with RoutedSession(engine, sync_session_class=Partitioned) as session:
                with pytest.raises(OSError, match="1"):
                    await session.scalar(select(Account.balance))
                assert len(refused) == 1
                assert await session.scalar(IN_RECOVERY) is (engine is servers.replica)
        async with RoutedSession(servers.replica, sync_session_class=Partitioned) as session:
            await session.connection()
            assert await session.scalar(IN_RECOVERY) is False
        assert len(servers.replica.topology.serving(None)) == 2


async def test_sqlalchemys_own_factories_make_ours(shop_cluster: LocalCluster) -> None:
    """`async_sessionmaker`, `async_scoped_session` and the keyword `bind`."""
    async with serving(shop_cluster) as servers:
        for engine in engines(servers):
            make = async_sessionmaker(engine, class_=RoutedSession, expire_on_commit=False)
            scoped = async_scoped_session(make, scopefunc=lambda: 1)
            for session in (make(), scoped(), RoutedSession(bind=engine), make(bind=engine)):
                assert isinstance(session, RoutedSession)
                assert await session.scalar(IN_RECOVERY) is (engine is servers.replica)
                await session.close()
            await scoped.remove()
            async with make.begin() as session:
                assert await session.scalar(IN_RECOVERY) is (engine is servers.replica)


async def test_a_session_without_an_engine_is_as_sqlalchemys(shop_cluster: LocalCluster) -> None:
    """Each session class may have one."""
    async with serving(shop_cluster) as servers, RoutedSession(binds={Item: servers.primary}) as session:
        assert await session.scalar(select(Item.amount).where(Item.id == 1)) == 10


async def test_a_session_that_is_given_another_bind_uses_it(shop_cluster: LocalCluster) -> None:
    """SQLAlchemy allows the bind to be set later."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        assert await session.scalar(IN_RECOVERY) is True
        session.sync_session.bind = servers.primary.sync_engine
        assert await session.scalar(IN_RECOVERY) is False


@pytest.mark.parametrize(("options", "field"), [({"twophase": True}, "twophase"), ({"bind": 1}, "bind")])
async def test_an_option_that_cannot_work_is_refused_at_once(
    shop_cluster: LocalCluster, options: dict[str, typing.Any], field: str
) -> None:
    """Two-phase commits, and an engine that is passed twice; on both servers."""
    async with serving(shop_cluster) as servers:
        for engine in engines(servers):
            with pytest.raises(ConfigurationError) as caught:
                RoutedSession(engine, **options)
            assert caught.value.field == field


def test_a_session_class_without_the_routing_is_refused() -> None:
    """It would read from the replica and fail at the first write; the error shows how to combine it."""
    anything: typing.Any = None
    with pytest.raises(ConfigurationError, match=r"class Session\(RoutedSession, AsyncSession\)"):
        create_session(anything, anything, Intent.read(), session_class=typing.cast(typing.Any, AsyncSession))


async def test_a_listener_of_a_class_hears_its_sessions_on_both_servers(shop_cluster: LocalCluster) -> None:
    """SQLAlchemy allows listeners on a session class."""

    class Heard(Session): ...

    heard: list[str] = []
    event.listen(
        Heard, "do_orm_execute", lambda state: heard.append(type(typing.cast(ORMExecuteState, state)).__name__)
    )
    async with serving(shop_cluster) as servers:
        for engine in engines(servers):
            async with RoutedSession(engine, sync_session_class=Heard) as session:
                await session.scalar(select(Item.amount).where(Item.id == 1))
    assert len(heard) == 2

"""Binds of the application in a session on a replica, and sessions that join the transaction of a test."""

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import serving
from tests.session.models import Account, Item, Shop


KEYED = select(Item.amount).where(Item.id == 1)
AMOUNTS = select(Item.amount).where(Item.id <= 20).order_by(Item.id)
EXPECTED = [n * 10 for n in range(1, 21)]
IN_RECOVERY = text("SELECT pg_is_in_recovery()")


async def test_a_statement_with_its_own_bind_uses_it(shop_cluster: LocalCluster) -> None:
    """An explicit engine takes precedence over the routing."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        arguments = {"bind": servers.primary.sync_engine}
        place = text("SELECT pg_is_in_recovery()")
        assert await session.scalar(place, bind_arguments=arguments) is False
        assert await session.scalar(place) is True


async def test_reading_the_bind_opens_no_connection(shop_cluster: LocalCluster) -> None:
    """Libraries read the dialect of a session's bind outside of any statement."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        assert session.get_bind().dialect.name == "postgresql"
        assert session.bind is not None
        assert servers.checked_out() == 0


async def test_a_mapper_or_table_that_is_bound_later_keeps_its_engine(shop_cluster: LocalCluster) -> None:
    """`bind_mapper()` and `bind_table()` determine the engine."""
    async with serving(shop_cluster) as servers:
        for bind in ("bind_mapper", "bind_table"):
            async with servers.session() as session:
                bound = Item if bind == "bind_mapper" else Item.__table__
                getattr(session.sync_session, bind)(bound, servers.primary.sync_engine)
                place = select(Item.amount, text("pg_is_in_recovery()")).where(Item.id == 1)
                assert (await session.execute(place)).one() == (10, False)
                assert session.decision.server != "primary"


async def test_a_session_can_be_given_engines_for_its_mappers(shop_cluster: LocalCluster) -> None:
    """The argument `binds` of SQLAlchemy's sessions; mappers that it does not name use the unit of work's server."""
    async with serving(shop_cluster) as servers, servers.session(binds={Item: servers.primary}) as session:
        place = select(Item.amount, text("pg_is_in_recovery()")).where(Item.id == 1)
        assert (await session.execute(place)).one() == (10, False)
        assert await session.scalar(select(text("pg_is_in_recovery()")).select_from(Shop))


async def test_unbound_tables_are_read_from_the_replica_beside_bound_ones(shop_cluster: LocalCluster) -> None:
    """One table has a separate engine; the others use the unit of work's server."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        session.sync_session.bind_table(Account.metadata.tables["account"], servers.primary.sync_engine)
        place = select(text("pg_is_in_recovery()")).select_from(Item).limit(1)
        assert await session.run_sync(lambda sync: sync.scalars(place).all()) == [True]


async def test_an_error_of_another_database_ejects_no_replica(shop_cluster: LocalCluster) -> None:
    """INVARIANT: a statement on another bind runs there once, and its errors do not count against the replica."""
    refused: list[object] = []
    nowhere = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    event.listen(nowhere.sync_engine, "do_connect", lambda *_: refused.append(True))
    async with serving(shop_cluster) as servers:
        async with servers.session(binds={Account: nowhere}) as session:
            with pytest.raises(OSError, match="1"):
                await session.scalar(select(Account.balance))
            assert await session.scalar(KEYED) == 10
            assert session.decision.server != "primary"
        assert len(refused) == 1
        assert len(servers.replica.topology.serving(None)) == 2


@pytest.mark.parametrize("mode", ["create_savepoint", "control_fully", "rollback_only", "conditional_savepoint"])
async def test_a_read_is_not_a_write_in_any_join_transaction_mode(shop_cluster: LocalCluster, mode: str) -> None:
    """INVARIANT: the savepoint is for the test's transaction, not for the connection that is read from."""
    async with (
        serving(shop_cluster, on_write="raise") as servers,
        servers.session(join_transaction_mode=mode) as session,
    ):
        assert (await session.scalars(AMOUNTS)).all() == EXPECTED
        assert await session.scalar(IN_RECOVERY) is True
        await session.commit()
        assert await session.scalar(IN_RECOVERY) is True
        assert session.sync_session.join_transaction_mode == mode


async def test_a_transaction_of_a_test_is_joined_by_a_savepoint_once_it_has_escalated(
    shop_cluster: LocalCluster,
) -> None:
    """Its commit must not commit the test's transaction."""
    async with serving(shop_cluster) as servers, servers.primary.connect() as connection:
        transaction = await connection.begin()
        async with servers.session(primary=connection, join_transaction_mode="create_savepoint") as session:
            assert (await session.scalars(AMOUNTS)).all() == EXPECTED
            session.add(Item(id=903, shop_id=1, amount=1))
            await session.commit()
        assert await connection.scalar(text("SELECT count(*) FROM item WHERE id = 903")) == 1
        await transaction.rollback()

"""A rollback on a replica has nothing to undo, so it never fails: an error would hide the reason for the rollback."""

import asyncio
import typing

import pytest
from sqlalchemy import Connection, Engine, select, text, update
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError

from modern_di_replicas.drivers.driver import Driver
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import serving
from tests.session.models import Item


class MistakeError(Exception):
    """An error of the application."""


@pytest.mark.parametrize("isolation", ["AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ"])
@pytest.mark.parametrize("what", ["read", "stream", "escalated"])
async def test_a_unit_of_work_can_be_rolled_back_when_its_replica_is_gone(
    disposable_shop: LocalCluster, isolation: typing.Any, what: str
) -> None:
    """It continues on the primary."""
    async with serving(disposable_shop, read_isolation=isolation) as servers, servers.session() as session:
        assert await session.scalar(select(Item.amount).where(Item.id == 1)) == 10
        if what == "stream":
            rows = await session.stream(select(Item.amount))
            await rows.fetchone()
        elif what == "escalated":
            await session.execute(update(Item).where(Item.id == 1).values(amount=11))
        for replica in disposable_shop.replicas:
            await asyncio.to_thread(replica.stop, "immediate")
        await session.rollback()
        assert await session.scalar(select(Item.amount).where(Item.id == 1)) == 10
        assert session.decision.server == "primary"


@pytest.mark.parametrize("isolation", ["AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ"])
async def test_a_first_connection_that_is_lost_before_its_rollback_is_replaced(
    shop_cluster: LocalCluster, isolation: typing.Any
) -> None:
    """SQLAlchemy asks each server once for its version, and rolls back on a connection that is not pooled yet."""
    async with serving(shop_cluster, read_isolation=isolation) as servers:
        for engine in servers.replica.engines.values():
            lose_after_questions(engine.sync_engine, servers.settings.driver)
        async with servers.session() as session:
            assert await session.scalar(text("SELECT pg_is_in_recovery()"))
            assert session.decision.server != "primary"


def lose_after_questions(engine: Engine, driver: Driver) -> None:
    """Terminate the first connection of an engine after SQLAlchemy's first questions, as the monitor may do."""
    ask = engine.dialect.initialize

    def ask_and_lose(connection: Connection) -> None:
        ask(connection)
        opened = typing.cast(DBAPIConnection, connection.connection.dbapi_connection)
        driver.terminate(engine.dialect.get_driver_connection(opened))
        engine.dialect.initialize = ask  # type: ignore[method-assign]  # the second connection lives

    engine.dialect.initialize = ask_and_lose  # type: ignore[method-assign]


async def test_core_gets_the_error_of_a_lost_connection(disposable_shop: LocalCluster) -> None:
    """Its statements are not run again, so the loss is reported."""
    async with (
        serving(disposable_shop, read_isolation="READ COMMITTED") as servers,
        servers.replica.connect() as connection,
    ):
        await connection.execute(text("SELECT 1"))
        for replica in disposable_shop.replicas:
            await asyncio.to_thread(replica.stop, "immediate")
        with pytest.raises(DBAPIError):
            await connection.rollback()


@pytest.mark.parametrize("isolation", ["AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ"])
async def test_an_error_of_the_application_is_not_hidden_by_the_end_of_its_transaction(
    disposable_shop: LocalCluster, isolation: typing.Any
) -> None:
    """Once it is caught, the session is usable."""
    async with serving(disposable_shop, read_isolation=isolation) as servers, servers.session() as session:

        async def make_a_mistake() -> None:
            async with session.begin():
                await session.execute(text("SELECT 1"))
                for replica in disposable_shop.replicas:
                    await asyncio.to_thread(replica.stop, "immediate")
                raise MistakeError

        with pytest.raises(MistakeError):
            await make_a_mistake()
        assert await session.scalar(text("SELECT pg_is_in_recovery()")) is False

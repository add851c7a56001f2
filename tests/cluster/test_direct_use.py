"""What an application does on the driver's connections is noticed."""

import collections.abc
import typing

import asyncpg
import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from modern_di_replicas.cluster.direct_use import EXPECTED, Info, watch_driver
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.testing import LocalCluster
from tests.driver import DRIVER


WRITE = "CREATE TEMPORARY TABLE note (n int)"


@pytest.fixture
async def engine(replicated_cluster: LocalCluster) -> collections.abc.AsyncIterator[AsyncEngine]:
    engine = create_async_engine(replicated_cluster.primary.url)
    yield engine
    await engine.dispose()


async def driver_of(connection: typing.Any) -> typing.Any:
    return (await connection.get_raw_connection()).driver_connection


async def test_what_is_written_past_sqlalchemy_is_noticed(engine: AsyncEngine) -> None:
    """Before it is sent; what only reads is not."""
    noticed: list[str | None] = []
    watch_driver(engine.sync_engine, lambda _, statement: noticed.append(statement))
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        driver = await driver_of(connection)
        await driver.execute("SELECT 2")
        await driver.execute(WRITE)
    assert noticed == [WRITE]


async def test_what_is_expected_is_not_noticed(engine: AsyncEngine) -> None:
    """SQLAlchemy is about to send it, and it is recorded there."""
    noticed: list[Info] = []
    watch_driver(engine.sync_engine, lambda info, _: noticed.append(info))
    async with engine.connect() as connection:
        info = (await connection.get_raw_connection()).info
        info[EXPECTED] = WRITE
        await (await driver_of(connection)).execute(WRITE)
        assert noticed == []
        await (await driver_of(connection)).execute("DROP TABLE note")
        assert noticed == [info]


async def test_a_connection_on_which_a_lost_commit_would_not_be_seen_is_refused(engine: AsyncEngine) -> None:
    """A listener of the application chose another connection class at the last moment."""
    watch_driver(engine.sync_engine)

    @event.listens_for(engine.sync_engine, "do_connect")
    def _choose(dialect: object, record: object, cargs: object, cparams: dict[str, typing.Any]) -> None:  # noqa: ARG001  # the event's signature
        cparams["connection_class"] = asyncpg.Connection if DRIVER == "asyncpg" else psycopg.AsyncConnection

    with pytest.raises(ConfigurationError, match="connect_args"):
        async with engine.connect():
            pass

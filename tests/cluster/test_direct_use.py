"""Direct use of the driver's connections is detected."""

import collections.abc
import typing

import asyncpg
import psycopg
import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from modern_di_replicas.cluster.direct_use import EXPECTED, Info, info_of, watch_driver
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.testing import LocalCluster
from tests.driver import DRIVER
from tests.pgbouncer import not_behind_a_pooler
from tests.session.conftest import serving
from tests.waiting import until


WRITE = "CREATE TEMPORARY TABLE note (n int)"


@pytest.fixture
async def engine(replicated_cluster: LocalCluster) -> collections.abc.AsyncIterator[AsyncEngine]:
    engine = create_async_engine(replicated_cluster.primary.url)
    yield engine
    await engine.dispose()


async def driver_of(connection: typing.Any) -> typing.Any:
    return (await connection.get_raw_connection()).driver_connection


async def test_writes_that_bypass_sqlalchemy_are_detected(engine: AsyncEngine) -> None:
    """Before the statement is sent; reads are not reported."""
    noticed: list[str | None] = []
    watch_driver(engine.sync_engine, lambda _, statement: noticed.append(statement))
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        driver = await driver_of(connection)
        await driver.execute("SELECT 2")
        await driver.execute(WRITE)
    assert noticed == [WRITE]


async def test_expected_statements_are_not_reported(engine: AsyncEngine) -> None:
    """SQLAlchemy sends it, and it is recorded there."""
    noticed: list[Info] = []
    watch_driver(engine.sync_engine, lambda info, _: noticed.append(info))
    async with engine.connect() as connection:
        info = info_of(await connection.get_raw_connection())
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


def use_detached(connection: Connection) -> int:
    """Use a connection that was detached from its pool; return the process id of its server."""
    pid = connection.scalar(text("SELECT pg_backend_pid()"))
    connection.detach()
    with pytest.raises(DBAPIError, match="division by zero"):
        connection.scalar(text("SELECT 1 / 0"))
    connection.rollback()
    assert connection.scalar(text("SELECT pg_backend_pid()")) == pid
    assert isinstance(pid, int)
    return pid


@not_behind_a_pooler("the connection to the server is the pooler's")
@pytest.mark.parametrize("role", ["primary", "replica"])
async def test_a_connection_that_is_detached_from_its_pool_works_until_it_is_closed(
    replicated_cluster: LocalCluster, caplog: pytest.LogCaptureFixture, role: str
) -> None:
    """Its place in the pool is free, and closing it ends it, as with SQLAlchemy's engines."""
    async with serving(replicated_cluster) as servers:
        server = replicated_cluster.primary if role == "primary" else replicated_cluster.replicas[0]
        engine = servers.primary if role == "primary" else servers.replica.topology.servers[1].engine
        async with engine.connect() as connection:
            pid = await connection.run_sync(use_detached)
            assert servers.checked_out() == 0
        of_pid = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"  # noqa: S608  # a number
        await until(lambda: server.execute(of_pid) == "0")
    assert caplog.messages == []

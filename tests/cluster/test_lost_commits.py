"""A COMMIT that PostgreSQL answers with ROLLBACK is an error, for every way to commit."""

import collections.abc
import contextlib
import pickle
import typing

import asyncpg
import psycopg
import pytest
import sqlalchemy.exc
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from modern_di_replicas import PrimaryEngine, ReplicasError, ReplicationSettings, RoutedSession
from modern_di_replicas.cluster.engines.create import create_primary_engine
from modern_di_replicas.consistency.client import Client, request_of
from modern_di_replicas.drivers.asyncpg_connection import reporting
from modern_di_replicas.errors import TransactionRolledBackError
from modern_di_replicas.testing import LocalCluster
from tests.driver import DRIVER, only_on


@pytest.fixture(scope="module")
def cluster() -> collections.abc.Iterator[LocalCluster]:
    with LocalCluster(replicas=1) as cluster:
        cluster.primary.execute(
            """
            CREATE TABLE note (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
            CREATE FUNCTION add() RETURNS int LANGUAGE sql AS 'INSERT INTO note VALUES (1) RETURNING id';
            """
        )
        yield cluster


def engine_of(cluster: LocalCluster, **settings: typing.Any) -> PrimaryEngine:
    urls = {"primary": cluster.primary.url, "replicas": [server.url for server in cluster.replicas]}
    return create_primary_engine(ReplicationSettings(**{**urls, **settings}))


async def fail_quietly(connection: AsyncConnection) -> None:
    """Write with a SELECT, then ignore an error."""
    await connection.execute(text("SELECT add()"))
    with contextlib.suppress(sqlalchemy.exc.DBAPIError):
        await connection.execute(text("SELECT 1 / 0"))


async def core_commit(primary: PrimaryEngine) -> None:
    async with primary.connect() as connection:
        await fail_quietly(connection)
        await connection.commit()


async def core_begin(primary: PrimaryEngine) -> None:
    async with primary.begin() as connection:
        await fail_quietly(connection)


async def session_commit(primary: PrimaryEngine) -> None:
    async with RoutedSession(primary) as session:
        await fail_quietly(await session.connection())
        await session.commit()


async def session_begin(primary: PrimaryEngine) -> None:
    async with RoutedSession(primary) as session, session.begin():
        await fail_quietly(await session.connection())


async def commit_as_a_statement(primary: PrimaryEngine) -> None:
    async with primary.connect() as connection:
        await fail_quietly(connection)
        await connection.execute(text("COMMIT"))


async def only_reads(primary: PrimaryEngine) -> None:
    async with primary.begin() as connection:
        with contextlib.suppress(sqlalchemy.exc.DBAPIError):
            await connection.execute(text("SELECT 1 / 0"))


async def transaction_of_the_driver(primary: PrimaryEngine) -> None:
    async with primary.connect() as connection:
        driver = typing.cast(typing.Any, (await connection.get_raw_connection()).driver_connection)
        async with driver.transaction():
            await driver.execute("SELECT add()")
            with contextlib.suppress(asyncpg.PostgresError, psycopg.Error):
                await driver.execute("SELECT 1 / 0")


async def statements_of_the_driver(primary: PrimaryEngine) -> None:
    async with primary.connect() as connection:
        driver = typing.cast(typing.Any, (await connection.get_raw_connection()).driver_connection)
        await driver.execute("SELECT add()" if DRIVER == "psycopg" else "BEGIN; SELECT add()")
        with contextlib.suppress(asyncpg.PostgresError, psycopg.Error):
            await driver.execute("SELECT 1 / 0")
        await driver.execute("/* a route */ COMMIT")


class OwnConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection class of the application."""


SETTINGS: dict[str, dict[str, typing.Any]] = {
    "tokens": {},
    "no tokens": {"token_carrier": None},
    "no replicas": {"replicas": []},
    "a connection class of its own": {"connect_args": {"connection_class": OwnConnection}},
}


@pytest.mark.parametrize(
    "settings",
    [
        *("tokens", "no tokens", "no replicas"),
        pytest.param("a connection class of its own", marks=only_on("asyncpg", "psycopg takes none as an argument")),
    ],
)
@pytest.mark.parametrize(
    "way",
    [
        *(core_commit, core_begin, session_commit, session_begin, only_reads),
        *(commit_as_a_statement, transaction_of_the_driver, statements_of_the_driver),
    ],
)
async def test_a_commit_that_was_rolled_back_is_an_error(
    cluster: LocalCluster, way: collections.abc.Callable[[PrimaryEngine], typing.Any], settings: str
) -> None:
    """INVARIANT: success is never reported for a transaction that was rolled back."""
    primary = engine_of(cluster, **SETTINGS[settings])
    client = Client(is_request=True)
    with request_of(client):
        with pytest.raises(TransactionRolledBackError) as raised:
            await way(primary)
        async with primary.connect() as connection:
            assert await connection.scalar(text("SELECT count(*) FROM note")) == 0, "and the connection goes on"
            if settings == "a connection class of its own":
                assert isinstance((await connection.get_raw_connection()).driver_connection, OwnConnection)
    await primary.dispose()

    is_direct = way in (transaction_of_the_driver, statements_of_the_driver)
    assert client.wrote is (is_direct and settings not in ("no tokens", "no replicas"))
    assert isinstance(raised.value, ReplicasError)
    assert isinstance(raised.value, sqlalchemy.exc.DBAPIError)
    assert typing.cast(typing.Any, raised.value.orig).sqlstate == "25P02"
    assert "rolled the transaction back" in str(pickle.loads(pickle.dumps(raised.value)))  # noqa: S301  # our own


async def test_a_deferred_constraint_that_fails_at_the_commit_records_no_write(cluster: LocalCluster) -> None:
    """The server has reported that nothing was committed."""
    primary = engine_of(cluster)
    client = Client(is_request=True)
    with request_of(client), pytest.raises(sqlalchemy.exc.IntegrityError):
        async with primary.begin() as connection:
            await connection.execute(text("INSERT INTO note VALUES (7), (7)"))
    await primary.dispose()

    assert (client.wrote, client.position_unknown, client.token) == (False, False, None)


def test_a_connection_class_that_reports_is_taken_as_it_is() -> None:
    """Two engines may share their `connect_args`."""
    assert reporting(reporting(OwnConnection)) is reporting(OwnConnection)


async def test_a_statement_that_was_prepared_past_sqlalchemy_counts_each_time_it_may_be_executed(
    cluster: LocalCluster,
) -> None:
    """INVARIANT: neither the driver nor the cache of SQLAlchemy's adapter reports it again."""
    primary = engine_of(cluster)

    def write(connection: Connection, value: int) -> None:
        insert = "INSERT INTO note VALUES ($1)" if DRIVER == "asyncpg" else "INSERT INTO note VALUES (%s)"
        connection.connection.cursor().execute(insert, (value,))

    tokens = []
    for value in (101, 102):
        client = Client(is_request=True)
        with request_of(client):
            async with primary.begin() as connection:
                await connection.run_sync(write, value)
        assert client.wrote
        assert not client.position_unknown
        tokens.append(client.token)
    cluster.primary.execute("DELETE FROM note")
    await primary.dispose()

    assert tokens[0] is not None
    assert tokens[1] is not None
    assert tokens[0].lsn < tokens[1].lsn

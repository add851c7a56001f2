"""psycopg's connections report all direct use by an application, bypassing SQLAlchemy."""

import collections.abc
import contextlib
import typing

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import event, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession

from modern_di_replicas import PrimaryEngine, ReplicationSettings
from modern_di_replicas.cluster.engines.create import create_primary_engine
from modern_di_replicas.drivers.psycopg import Psycopg
from modern_di_replicas.drivers.psycopg_connection import ReportingCursor, reporting
from modern_di_replicas.errors import ConfigurationError, TransactionRolledBackError
from modern_di_replicas.testing import LocalCluster


class OwnCursor(psycopg.AsyncCursor[typing.Any]):
    """A cursor class of an application."""


def url_of(cluster: LocalCluster) -> str:
    url = make_url(cluster.primary.url).set(drivername="postgresql+psycopg")
    return url.render_as_string(hide_password=False)


@contextlib.asynccontextmanager
async def connected(cluster: LocalCluster) -> collections.abc.AsyncIterator[typing.Any]:
    driver = Psycopg()
    arguments = driver.connect_args({"cursor_factory": OwnCursor}, application_name="x", timeout=10, pooled=False)
    driver.make_reporting(arguments)
    connection = await driver.connect(make_url(url_of(cluster)), arguments)
    yield connection
    await driver.close(connection, within=1)


async def test_it_reports_every_statement(replicated_cluster: LocalCluster) -> None:
    """By each of psycopg's methods, and for each type of query text."""
    reported: list[str | None] = []
    async with connected(replicated_cluster) as connection:
        await connection.execute("SELECT 0")  # before a listener is set
        assert Psycopg().report(connection, reported.append)
        await connection.execute("CREATE TEMPORARY TABLE t (n int)")
        async with connection.cursor() as cursor:
            assert isinstance(cursor, OwnCursor)
            await cursor.execute(b"SELECT 1")
            await cursor.execute(sql.SQL("SELECT {}").format(sql.Literal(2)))
            await cursor.executemany("INSERT INTO t VALUES (%s)", [(1,), (2,)])
            assert [row async for row in cursor.stream("SELECT 3")] == [(3,)]
            async with cursor.copy("COPY t FROM STDIN") as copy:
                await copy.write("4\n")

    assert reported == [
        "CREATE TEMPORARY TABLE t (n int)",
        "SELECT 1",
        "SELECT 2",
        "INSERT INTO t VALUES (%s)",
        "SELECT 3",
        "COPY t FROM STDIN",
    ]


@pytest.mark.parametrize("way", ["commit()", "COMMIT", b"COMMIT", sql.SQL("COMMIT")], ids=repr)
async def test_a_commit_that_was_a_rollback_is_an_error(replicated_cluster: LocalCluster, way: typing.Any) -> None:
    """INVARIANT: PostgreSQL answers COMMIT in a failed transaction with ROLLBACK; libpq reports success."""
    async with connected(replicated_cluster) as connection:
        await connection.execute("BEGIN")
        with pytest.raises(psycopg.errors.DivisionByZero):
            await connection.execute("SELECT 1 / 0")
        with pytest.raises(TransactionRolledBackError):
            await (connection.commit() if way == "commit()" else connection.execute(way))
        await connection.execute("BEGIN")
        await (connection.commit() if way == "commit()" else connection.execute(way))


async def test_a_commit_of_the_two_phase_methods_is_reported(replicated_cluster: LocalCluster) -> None:
    """Also for a transaction that was not prepared; for a failed transaction it is an error."""
    reported: list[str | None] = []
    async with connected(replicated_cluster) as connection:
        await connection.set_autocommit(False)
        await connection.tpc_begin("before anybody listens")
        await connection.tpc_commit()
        assert Psycopg().report(connection, reported.append)
        await connection.tpc_begin("good")
        await connection.tpc_commit()
        await connection.tpc_begin("failed")
        with contextlib.suppress(psycopg.errors.DivisionByZero):
            await connection.execute("SELECT 1 / 0")
        with pytest.raises(TransactionRolledBackError):
            await connection.tpc_commit()
    assert reported == ["COMMIT PREPARED", "SELECT 1 / 0", "COMMIT PREPARED"]


async def test_a_failed_transaction_is_not_prepared(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: PostgreSQL answers PREPARE TRANSACTION with ROLLBACK there; libpq reports success.

    Other transactions are sent; this server refuses them, because its `max_prepared_transactions` is 0.
    """
    async with connected(replicated_cluster) as connection:
        await connection.set_autocommit(False)
        await connection.tpc_begin("failed")
        with contextlib.suppress(psycopg.errors.DivisionByZero):
            await connection.execute("SELECT 1 / 0")
        with pytest.raises(TransactionRolledBackError):
            await connection.tpc_prepare()
        await connection.tpc_rollback()
        await connection.tpc_begin("good")
        with pytest.raises(psycopg.NotSupportedError):
            await connection.tpc_prepare()


async def test_a_session_learns_that_its_commit_was_a_rollback(replicated_cluster: LocalCluster) -> None:
    """An error was swallowed without a savepoint: the earlier writes are lost."""
    engine: PrimaryEngine = create_primary_engine(ReplicationSettings(primary=url_of(replicated_cluster)))
    async with AsyncSession(engine) as session:
        with contextlib.suppress(Exception):
            await (await session.connection()).exec_driver_sql("SELECT 1 / 0")
        with pytest.raises(TransactionRolledBackError):
            await session.commit()
        await session.rollback()
        assert await session.scalar(text("SELECT 1")) == 1
    await engine.dispose()


async def test_connections_of_the_applications_own_are_refused(replicated_cluster: LocalCluster) -> None:
    """The library could not detect a lost commit on them."""
    engine = create_primary_engine(ReplicationSettings(primary=url_of(replicated_cluster)))

    @event.listens_for(engine.sync_engine, "do_connect")
    def _own(dialect: object, record: object, cargs: object, cparams: dict[str, typing.Any]) -> None:  # noqa: ARG001  # the event's signature
        cparams["connection_class"] = psycopg.AsyncConnection

    with pytest.raises(ConfigurationError):
        await engine.connect()
    await engine.dispose()


def test_a_cursor_class_is_combined_once() -> None:
    """The default class needs no combination."""
    assert reporting(psycopg.AsyncCursor) is ReportingCursor
    assert reporting(OwnCursor) is reporting(OwnCursor)


async def fail_in_a_transaction(connection: typing.Any) -> None:
    async with connection.transaction():
        with contextlib.suppress(psycopg.errors.DivisionByZero):
            await connection.execute("SELECT 1/0")


async def test_psycopgs_own_transaction_raises_where_its_commit_was_a_rollback(
    replicated_cluster: LocalCluster,
) -> None:
    """An error caught inside leaves the outermost transaction failed; psycopg handles savepoints itself."""
    async with connected(replicated_cluster) as connection:
        await connection.set_autocommit(True)
        async with connection.transaction(), connection.transaction():
            await connection.execute("SELECT 1")
        with pytest.raises(TransactionRolledBackError):
            await fail_in_a_transaction(connection)
        assert (await (await connection.execute("SELECT 1")).fetchone()) is not None

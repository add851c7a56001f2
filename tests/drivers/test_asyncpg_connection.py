"""asyncpg's connections report all direct use by an application, bypassing SQLAlchemy."""

import contextlib
import io

import asyncpg
import pytest

from modern_di_replicas.drivers.asyncpg_connection import ReportingConnection, reporting
from modern_di_replicas.errors import TransactionRolledBackError
from modern_di_replicas.testing import LocalCluster


class OwnConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection class of an application."""


async def connected(cluster: LocalCluster) -> ReportingConnection:
    connection: ReportingConnection = await asyncpg.connect(
        cluster.primary.dsn, connection_class=reporting(OwnConnection)
    )
    assert isinstance(connection, OwnConnection)
    return connection


async def test_it_reports_every_statement(replicated_cluster: LocalCluster) -> None:
    """By each of asyncpg's methods; a COPY into a table has no text."""
    reported: list[str | None] = []
    connection = await connected(replicated_cluster)
    await connection.execute("SELECT 0")  # before a listener is set
    connection.report = reported.append
    await connection.execute("CREATE TEMPORARY TABLE t (n int)")
    await connection.executemany("INSERT INTO t VALUES ($1)", [(1,), (2,)])
    await connection.fetch("SELECT 1")
    await connection.fetchmany("SELECT $1::int", [(1,)])
    await connection.fetchrow("SELECT 2")
    assert await connection.fetchval("SELECT 3") == 3
    await connection.prepare("SELECT 4")
    async with connection.transaction():
        assert [row[0] async for row in connection.cursor("SELECT 5")] == [5]
    await connection.copy_from_query("SELECT 6", output=io.BytesIO())
    await connection.copy_to_table("t", source=io.BytesIO(b"7\n"))
    await connection.copy_records_to_table("t", records=[(8,)])
    await connection.close()

    assert [statement for statement in reported if statement not in ("BEGIN;", "COMMIT;")] == [
        "CREATE TEMPORARY TABLE t (n int)",
        "INSERT INTO t VALUES ($1)",
        "SELECT 1",
        "SELECT $1::int",
        "SELECT 2",
        "SELECT 3",
        "SELECT 4",
        "SELECT 5",
        "SELECT 6",
        None,
        None,
    ]


@pytest.mark.parametrize("way", ["COMMIT", "transaction()"])
async def test_a_commit_that_was_a_rollback_is_an_error(replicated_cluster: LocalCluster, way: str) -> None:
    """INVARIANT: PostgreSQL answers COMMIT in a failed transaction with ROLLBACK; asyncpg reports success."""

    async def fail() -> None:
        with contextlib.suppress(asyncpg.DivisionByZeroError):
            await connection.execute("SELECT 1 / 0")

    connection = await connected(replicated_cluster)
    if way == "COMMIT":
        await connection.execute("BEGIN")
        await fail()
        with pytest.raises(TransactionRolledBackError):
            await connection.execute(way)
    else:
        with pytest.raises(TransactionRolledBackError):
            async with connection.transaction():
                await fail()
    await connection.execute("BEGIN")
    assert await connection.execute("ROLLBACK") == "ROLLBACK"
    await connection.close()


def test_a_class_is_made_reporting_once() -> None:
    """Two engines may share their `connect_args`."""
    assert reporting(asyncpg.Connection) is ReportingConnection
    assert reporting(reporting(OwnConnection)) is reporting(OwnConnection)

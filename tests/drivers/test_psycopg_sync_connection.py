"""psycopg's synchronous connections report direct use by an application."""

import contextlib
import typing

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import create_engine

from modern_di_replicas import TransactionRolledBackError
from modern_di_replicas.drivers.psycopg_sync import PsycopgSync
from modern_di_replicas.drivers.psycopg_sync_connection import ReportingCursor, reporting
from modern_di_replicas.testing import LocalCluster
from tests.sync.conftest import synchronous


class OwnCursor(psycopg.Cursor[typing.Any]):
    """A cursor class of an application."""


@contextlib.contextmanager
def connected(cluster: LocalCluster, **options: typing.Any) -> typing.Iterator[typing.Any]:
    """Yield a connection as one of our engines opens it."""
    driver = PsycopgSync()
    arguments = driver.connect_args(
        {"cursor_factory": OwnCursor, **options}, application_name="x", timeout=10, pooled=False
    )
    driver.make_reporting(arguments)
    engine = create_engine(synchronous(cluster.primary.url), connect_args=arguments)
    driver.set_up(engine)
    raw = engine.raw_connection()
    connection = typing.cast(psycopg.Connection, raw.driver_connection)
    connection.autocommit = True
    yield connection
    raw.invalidate()
    engine.dispose()


def test_it_reports_every_statement(replicated_cluster: LocalCluster) -> None:
    """By each of psycopg's methods, and for each type of query text."""
    reported: list[str | None] = []
    with connected(replicated_cluster) as connection:
        connection.execute("SELECT 0")  # before a listener is set
        assert PsycopgSync().report(connection, reported.append)
        connection.execute("CREATE TEMPORARY TABLE t (n int)")
        with connection.cursor() as cursor:
            assert isinstance(cursor, OwnCursor)
            cursor.execute(b"SELECT 1")
            cursor.execute(sql.SQL("SELECT {}").format(sql.Literal(2)))
            cursor.executemany("INSERT INTO t VALUES (%s)", [(1,), (2,)])
            assert list(cursor.stream("SELECT 3")) == [(3,)]
            with cursor.copy("COPY t FROM STDIN") as copy:
                copy.write("4\n")
    assert reported == [
        "CREATE TEMPORARY TABLE t (n int)",
        "SELECT 1",
        "SELECT 2",
        "INSERT INTO t VALUES (%s)",
        "SELECT 3",
        "COPY t FROM STDIN",
    ]
    assert reporting(psycopg.Cursor) is ReportingCursor
    assert not PsycopgSync().report(object(), reported.append)


def test_a_commit_of_the_two_phase_methods_is_reported(replicated_cluster: LocalCluster) -> None:
    """Also for a transaction that was not prepared; for a failed transaction it is an error."""
    reported: list[str | None] = []
    with connected(replicated_cluster) as connection:
        connection.autocommit = False
        connection.tpc_begin("before anybody listens")
        connection.tpc_commit()
        assert PsycopgSync().report(connection, reported.append)
        connection.tpc_begin("good")
        connection.tpc_commit()
        connection.tpc_begin("failed")
        with contextlib.suppress(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / 0")
        with pytest.raises(TransactionRolledBackError):
            connection.tpc_commit()
    assert reported == ["COMMIT PREPARED", "SELECT 1 / 0", "COMMIT PREPARED"]


def test_a_failed_transaction_is_not_prepared(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: PostgreSQL answers PREPARE TRANSACTION with ROLLBACK there; libpq reports success.

    Other transactions are sent; this server refuses them, because its `max_prepared_transactions` is 0.
    """
    with connected(replicated_cluster) as connection:
        connection.autocommit = False
        connection.tpc_begin("failed")
        with contextlib.suppress(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / 0")
        with pytest.raises(TransactionRolledBackError):
            connection.tpc_prepare()
        connection.tpc_rollback()
        connection.tpc_begin("good")
        with pytest.raises(psycopg.NotSupportedError):
            connection.tpc_prepare()


@pytest.mark.parametrize("way", ["commit()", "COMMIT", b"COMMIT", sql.SQL("COMMIT"), "transaction()"], ids=repr)
def test_a_commit_that_was_a_rollback_is_an_error(replicated_cluster: LocalCluster, way: typing.Any) -> None:
    """INVARIANT: PostgreSQL answers COMMIT in a failed transaction with ROLLBACK; libpq reports success."""

    def fail(connection: typing.Any) -> None:
        with contextlib.suppress(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / 0")

    with connected(replicated_cluster) as connection:
        for lose in (True, False):
            with pytest.raises(TransactionRolledBackError) if lose else contextlib.nullcontext():
                if way == "transaction()":
                    with connection.transaction():
                        if lose:
                            fail(connection)
                    continue
                connection.execute("BEGIN")
                if lose:
                    fail(connection)
                connection.commit() if way == "commit()" else connection.execute(way)

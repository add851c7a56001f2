"""The classification of an error, by the server's SQLSTATE and the state of the connection."""

import asyncpg
import pytest
import sqlalchemy.exc
from sqlalchemy.ext.asyncio import create_async_engine

from modern_di_replicas.cluster.failures import (
    Failure,
    classify,
    classify_connecting,
    classify_statement,
    note_checkout_failure,
    note_failure,
)


ENGINE = create_async_engine("postgresql+asyncpg://").sync_engine


@pytest.mark.parametrize(
    ("state", "meaning"),
    [
        ("25006", Failure.WRITE),
        ("57014", Failure.OWN),
        ("55P03", Failure.OWN),
        ("57P01", Failure.REFUSED),
        ("57P02", Failure.REFUSED),
        ("57P03", Failure.REFUSED),
        ("57P05", Failure.REFUSED),
        ("25P03", Failure.REFUSED),
        ("25P04", Failure.REFUSED),
        ("08006", Failure.REFUSED),
        ("08P01", Failure.LOST),
        ("53100", Failure.TRANSIENT),
        ("53200", Failure.TRANSIENT),
        ("53300", Failure.TRANSIENT),
        ("53400", Failure.TRANSIENT),
        ("58030", Failure.TRANSIENT),
        ("XX001", Failure.TRANSIENT),
        ("40001", Failure.TRANSIENT),
        ("40P01", Failure.TRANSIENT),
        ("42P01", Failure.REFUSED),
        ("22012", Failure.REFUSED),
        ("55000", Failure.REFUSED),
        (None, Failure.REFUSED),
    ],
)
def test_errors_on_an_open_connection_are_classified(state: str | None, meaning: Failure) -> None:
    """The SQLSTATE decides; statements with any other error are run on the primary."""
    assert classify_statement(state, lost=False) is meaning


@pytest.mark.parametrize(
    ("state", "meaning"),
    [
        (None, Failure.LOST),
        ("57P01", Failure.LOST),
        ("25P03", Failure.LOST),
        ("08006", Failure.LOST),
        ("42P01", Failure.LOST),
        ("53200", Failure.LOST),
        ("57014", Failure.OWN),
        ("25006", Failure.WRITE),
    ],
)
def test_errors_on_a_closed_connection_are_classified(state: str | None, meaning: Failure) -> None:
    """A new connection is tried, except for a time limit and a write, whose result would not change."""
    assert classify_statement(state, lost=True) is meaning


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("query_wait_timeout", Failure.TRANSIENT),
        # The first client after an outage gets this error, and the next one is served.
        ("server login has been failing, try again later (server_login_retry)", Failure.LOST),
        ("server conn crashed?", Failure.LOST),
    ],
)
def test_a_query_wait_timeout_of_a_pooler_is_not_retried(text: str, meaning: Failure) -> None:
    """INVARIANT: each attempt would wait equally long; other errors of a pooler are resolved by the next attempt."""
    assert classify_statement("08P01", lost=True, text=text) is meaning
    assert classify_statement("08P01", lost=False, text=text) is Failure.LOST


@pytest.mark.parametrize(
    ("error", "state", "meaning"),
    [
        (ConnectionRefusedError(), None, Failure.DOWN),
        (TimeoutError(), None, Failure.DOWN),
        (OSError("no route to host"), None, Failure.DOWN),
        (Exception(), "57P03", Failure.DOWN),
        (Exception(), "53300", Failure.DOWN),
        (Exception(), "28P01", Failure.DOWN),
        (Exception(), "57P01", Failure.LOST),
        (Exception(), "08006", Failure.LOST),
        (ConnectionResetError(), None, Failure.LOST),
        (ConnectionError("unexpected connection_lost() call"), None, Failure.LOST),
    ],
)
def test_errors_of_connecting_are_classified(error: Exception, state: str | None, meaning: Failure) -> None:
    """A server that refuses or is silent is down; after a closed connection, another attempt is made first."""
    assert classify_connecting(error, state) is meaning


@pytest.mark.parametrize(
    "error",
    [
        OSError(),
        FileNotFoundError(),
        ConnectionResetError(),
        ConnectionRefusedError(),
        TimeoutError(),
        ValueError(),
        asyncpg.ConnectionDoesNotExistError("of another database"),
        sqlalchemy.exc.DBAPIError("SELECT 1", (), Exception(), connection_invalidated=True),
        sqlalchemy.exc.TimeoutError("of another pool"),
    ],
)
def test_an_error_without_a_note_is_the_applications(error: Exception) -> None:
    """INVARIANT: the type is not sufficient: the application raises the same types, and uses other databases."""
    assert classify(error) is Failure.OWN


def test_the_note_is_found_on_errors_raised_from_the_drivers_error() -> None:
    """SQLAlchemy wraps the driver's error, and a listener for `handle_error` may raise another error from it."""
    error, raised = OSError(), ValueError()
    note_failure(error, Failure.DOWN)
    raised.__cause__ = error
    assert (classify(error), classify(raised)) == (Failure.DOWN, Failure.DOWN)


def test_the_first_note_counts() -> None:
    """It was added where the error occurred."""
    error = asyncpg.InterfaceError("")
    note_failure(error, Failure.DOWN)
    note_checkout_failure(error, ENGINE)
    assert classify(error) is Failure.DOWN


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (sqlalchemy.exc.TimeoutError("of another pool"), Failure.OWN),
        (sqlalchemy.exc.DBAPIError("of another engine", (), Exception()), Failure.OWN),
        (ENGINE.dialect.loaded_dbapi.Error(""), Failure.LOST),
        (asyncpg.ConnectionDoesNotExistError(""), Failure.LOST),
        (asyncpg.InterfaceError(""), Failure.LOST),
        (ConnectionError("of a cache"), Failure.OWN),
        (TimeoutError("of a secret store"), Failure.OWN),
    ],
)
def test_errors_of_a_pools_checkout_are_classified(error: Exception, meaning: Failure) -> None:
    """An error that is not the driver's comes from a listener of the application, unless it has a note."""
    note_checkout_failure(error, ENGINE)
    assert classify(error) is meaning

"""Classify the errors of statements on a replica where they arise, not by their type.

An application raises `OSError` and `TimeoutError` as well, in a type, in a listener, in a client of another database.
So the caller of the driver stores the class on the error; an error without one is the application's.
"""

import enum
import typing

from sqlalchemy import Engine

from modern_di_replicas.drivers.known import driver_of


REFUSED_WRITE: typing.Final = "25006"
"""read_only_sql_transaction: a standby's answer to a write. PostgreSQL, appendix A, error codes."""

_TIME_LIMITS: typing.Final = frozenset({"57014", "55P03"})
"""query_canceled and lock_not_available: a timeout that was set, which the primary would hit as well."""

_SESSION_ENDED: typing.Final = ("57P", "25P03", "25P04", "08")
"""How a server ends a connection. On one that lives, the statement was told so of another: by `dblink`, for example."""

_POOLER: typing.Final = "08P01"
"""protocol_violation: a pooler has lost the server's connection, whatever the severity."""

_TRANSIENT: typing.Final = ("53", "58", "XX", "40", "57")
"""Insufficient resources, system and internal errors, conflicts with recovery: the server's state, not the statement's.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

MAX_RUNS: typing.Final = 3
"""How often in a row a statement is run on one replica, when its connections are lost."""

MAX_CONNECTS: typing.Final = 10
"""How often in a row a connection to one replica is tried, when it is lost before it can be used."""

_NOTE: typing.Final = "modern_di_replicas_failure"


class Failure(enum.Enum):
    """What to do about an error of a replica."""

    WRITE = "the statement writes: it belongs on the primary"
    REFUSED = "the replica does not run this statement: the primary may"
    TRANSIENT = "the replica cannot do it now: another server can"
    LOST = "the connection was lost: a new one can do it"
    DOWN = "no connection can be opened: another server can do it"
    OWN = "it is the application's error, or a timeout: no other server would do better"


def classify_statement(sqlstate: str | None, *, lost: bool, text: str = "") -> Failure:
    """Classify an error that the driver raised while it executed a statement.

    Every error that a server reports counts as the replica's, except timeouts: a replica may lack a table that
    the primary has had for a second, and an invalid statement fails on the primary as well.

    Args:
        sqlstate: the SQLSTATE; None when the server sent none.
        lost: whether the connection is gone.
        text: the message of the server, or of a pooler in front of it.

    """
    state = sqlstate or ""
    if lost and state == _POOLER and "query_wait_timeout" in text:
        # pgbouncer's connections are all in use or cannot be made: another attempt would wait as long again.
        return Failure.TRANSIENT
    if state == REFUSED_WRITE:
        return Failure.WRITE
    if state in _TIME_LIMITS:
        return Failure.OWN
    if lost or state == _POOLER:
        return Failure.LOST
    is_transient = state.startswith(_TRANSIENT) and not state.startswith(_SESSION_ENDED)
    return Failure.TRANSIENT if is_transient else Failure.REFUSED


def classify_connecting(error: BaseException, sqlstate: str | None) -> Failure:
    """Classify an error that the driver raised while it connected.

    A connection that was closed while it was opened does not mean that its server is down; the next attempt shows that.
    """
    was_ended = isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError)
    return Failure.LOST if was_ended or (sqlstate or "").startswith(("57P01", "57P02", "08")) else Failure.DOWN


def note_failure(error: BaseException, failure: Failure) -> None:
    """Store the class of an error on it; the first one counts, because it was stored where the error arose."""
    vars(error).setdefault(_NOTE, failure)


def note_checkout_failure(error: BaseException, engine: Engine) -> None:
    """Classify an error that a replica's pool raised at a checkout.

    An error of the driver comes from a query on a new connection, by the library, SQLAlchemy or a listener to
    "connect". Any other error is the application's, unless it is classified already.
    """
    if isinstance(error, (*driver_of(engine).errors, engine.dialect.loaded_dbapi.Error)):
        note_failure(error, Failure.LOST)


def classify(error: BaseException) -> Failure:
    """Return the class of a statement's error on a replica."""
    # SQLAlchemy raises its own error from the driver's, as does a `handle_error` listener of the application.
    for noted in (error, error.__cause__):
        failure: Failure | None = None if noted is None else vars(noted).get(_NOTE)
        if failure is not None:
            return failure
    return Failure.OWN


def reason_of(error: BaseException) -> str:
    """Return one line that says why something failed: the message of the driver or system, else its type."""
    original = getattr(error, "orig", None) or error
    innermost = original.__cause__ if original is not error and original.__cause__ is not None else original
    return str(innermost).strip().partition("\n")[0] or type(innermost).__name__

"""What an error means for the statement it happened to on a replica: judged where it arises, not by its type.

An application raises `OSError` and `TimeoutError` as well, in a type, in a listener, in a client of another database.
So the caller of the driver notes on the error what it means; an error without a note is the application's own.
"""

import enum
import typing

from sqlalchemy import Engine

from modern_di_replicas.drivers.known import driver_of


REFUSED_WRITE: typing.Final = "25006"
"""read_only_sql_transaction: what a standby answers to a write. PostgreSQL, appendix A, error codes."""

_LIMITED: typing.Final = frozenset({"57014", "55P03"})
"""query_canceled and lock_not_available: a time limit that somebody set, which the primary would hit as well."""

_OTHERS: typing.Final = ("57P", "25P03", "25P04", "08")
"""How a server ends a connection. On one that lives, the statement was told so of another: by `dblink`, for example."""

_POOLER: typing.Final = "08P01"
"""protocol_violation: how a pooler says that it has lost the server's connection, whatever severity it gives it."""

_TROUBLED: typing.Final = ("53", "58", "XX", "40", "57")
"""Insufficient resources, system and internal errors, conflicts with recovery: the server's state, not the statement's.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

RUNS: typing.Final = 3
"""How often in a row a statement is run on one replica, when its connections are lost."""

CONNECTS: typing.Final = 10
"""How often in a row a connection to one replica is tried, when it is lost before it can be used."""

_NOTE: typing.Final = "modern_di_replicas_failure"


class Failure(enum.Enum):
    """What to do about an error of a replica."""

    WRITE = "the statement writes: it belongs on the primary"
    REFUSED = "the replica does not run this statement: the primary may"
    TROUBLED = "the replica cannot do it now: another server can"
    LOST = "the connection was lost: a new one can do it"
    DOWN = "no connection can be had: another server can do it"
    OWN = "it is the application's error, or a time limit: no other server would do better"


def judge(sqlstate: str | None, *, lost: bool, text: str = "") -> Failure:
    """Return what an error means that the driver raised while it executed a statement.

    Everything a server reports is taken for the replica's fault, but for time limits: a replica may lack a table
    that the primary has had for a second, and a statement that really is wrong fails on the primary as well.

    Args:
        sqlstate: what the server said; None when it said nothing.
        lost: whether the connection is gone.
        text: what the server, or a pooler in front of it, said in words.

    """
    state = sqlstate or ""
    if lost and state == _POOLER and "query_wait_timeout" in text:
        # pgbouncer, whose connections are all in use or cannot be made: another attempt would wait as long again.
        return Failure.TROUBLED
    if state == REFUSED_WRITE:
        return Failure.WRITE
    if state in _LIMITED:
        return Failure.OWN
    if lost or state == _POOLER:
        return Failure.LOST
    is_troubled = state.startswith(_TROUBLED) and not state.startswith(_OTHERS)
    return Failure.TROUBLED if is_troubled else Failure.REFUSED


def judge_connecting(error: BaseException, sqlstate: str | None) -> Failure:
    """Return what an error means that the driver raised while it connected.

    A connection that is ended in that moment, like any other, says nothing of its server; the next attempt does.
    """
    was_ended = isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError)
    return Failure.LOST if was_ended or (sqlstate or "").startswith(("57P01", "57P02", "08")) else Failure.DOWN


def blame(error: BaseException, failure: Failure) -> None:
    """Note on an error what it means; the first note counts, because it was made where the error arose."""
    vars(error).setdefault(_NOTE, failure)


def blame_checkout(error: BaseException, engine: Engine) -> None:
    """Note what an error means that a replica's pool raised instead of giving a connection.

    What the driver raises comes from what our own checks, SQLAlchemy and listeners to "connect" ask on a new
    connection. Of other errors only those are the server's that have a note already; the rest are the application's.
    """
    if isinstance(error, (*driver_of(engine).errors, engine.dialect.loaded_dbapi.Error)):
        blame(error, Failure.LOST)


def classify(error: BaseException) -> Failure:
    """Return what an error means that a statement met on a replica."""
    # SQLAlchemy raises its own error from the driver's, and so does a `handle_error` listener of the application.
    for noted in (error, error.__cause__):
        failure: Failure | None = None if noted is None else vars(noted).get(_NOTE)
        if failure is not None:
            return failure
    return Failure.OWN


def reason_of(error: BaseException) -> str:
    """Return in one line why something failed: what the driver or system says; the kind of error if it says nothing."""
    original = getattr(error, "orig", None) or error
    innermost = original.__cause__ if original is not error and original.__cause__ is not None else original
    return str(innermost).strip().partition("\n")[0] or type(innermost).__name__

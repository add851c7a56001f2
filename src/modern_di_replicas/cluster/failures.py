"""What an error of a replica means for the statement it happened to."""

import enum
import typing

import sqlalchemy.exc

from modern_di_replicas.drivers.driver import Driver


REFUSED_WRITE: typing.Final = "25006"
"""read_only_sql_transaction: what a standby answers to a write. PostgreSQL, appendix A, error codes."""

_ASKED_FOR: typing.Final = frozenset({"57014", "55P03"})
"""query_canceled and lock_not_available: a configured time limit, which the primary would hit as well."""


_SHUTDOWN: typing.Final = frozenset({"57P01", "57P02", "57P03"})
"""admin_shutdown, crash_shutdown and cannot_connect_now: the server is going or coming."""

_NO_CONNECTION: typing.Final = ("08", "28", "3D", "53300")
"""connection exceptions, a wrong user or password, no such database, too_many_connections."""


class Failure(enum.Enum):
    """What to do about an error of a replica."""

    WRITE = "the statement writes: it belongs on the primary"
    REFUSED = "the replica could not do it this time: the primary can"
    DOWN = "the replica cannot be reached, or threw the connection out: the primary can"
    OWN = "the statement failed by itself, or was limited by a time limit: the primary would not do better"


def classify(error: Exception, driver: Driver) -> Failure:
    """Return what an error means that a statement met on a replica.

    Everything a server reports is taken for the replica's fault, but for time limits: a replica may lack a table
    that the primary has had for a second, and a statement that really is wrong fails on the primary as well.
    Errors of the program itself, which no server has seen, are not.
    """
    state = driver.sqlstate(error) or ""
    if state or isinstance(error, sqlalchemy.exc.DBAPIError):
        if state == REFUSED_WRITE:
            return Failure.WRITE
        if state in _ASKED_FOR:
            return Failure.OWN
        is_lost = isinstance(error, sqlalchemy.exc.DBAPIError) and error.connection_invalidated
        return Failure.DOWN if is_lost or state in _SHUTDOWN or state.startswith(_NO_CONNECTION) else Failure.REFUSED
    if isinstance(error, sqlalchemy.exc.TimeoutError):  # of the pool: the replica is busy, not down
        return Failure.REFUSED
    return Failure.DOWN if driver.is_lost(error) else Failure.OWN

"""Notices each commit that really wrote, however it is made, and asks the primary how far it is then."""

import dataclasses
import logging
import time
import typing

from sqlalchemy import AdaptedConnection, Connection, Engine, ExceptionContext, event
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

from modern_di_replicas.client import expect_write, note_write
from modern_di_replicas.lsn import ConsistencyToken, identify, last_record_end
from modern_di_replicas.routing.statements import Need, foresee


logger = logging.getLogger("modern_di_replicas")

QUESTION: typing.Final = """
SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint AS flushed,
       (insert_lsn - '0/0')::bigint AS inserted,
       (pg_walfile_name_offset(insert_lsn)).file_offset AS inserted_in_file,
       current_setting('synchronous_commit') = 'off' AS commits_lazily,
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int AS timeline,
       (SELECT system_identifier FROM pg_control_system()) AS system,
       (SELECT oid::bigint FROM pg_database WHERE datname = current_database()) AS database
FROM (SELECT pg_current_wal_insert_lsn() AS insert_lsn) AS log
"""

HAS_WRITTEN: typing.Final = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL"
"""A transaction that wrote has an id. PostgreSQL, chapter 9.27, "System Information Functions"."""

_CHANGES: typing.Final = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE"})
_LAZINESS: typing.Final = "synchronous_commit"
_WORK: typing.Final = "modern_di_replicas.work"


@dataclasses.dataclass(slots=True)
class _Work:
    """What was done on one connection since it was checked out."""

    has_run: bool = False
    """Whether the transaction under way has run a statement."""
    has_changed: bool = False
    """Whether it has changed rows, as far as the client side can see."""
    is_committing: bool = False
    """Whether a transaction that wrote was told to commit, and nothing was heard of it since."""
    has_committed: bool = False
    commits_lazily: bool = False
    """Whether a commit may have returned before it was flushed: somebody has set `synchronous_commit`."""


class Writes:
    """Notices the writes on one engine, and notes a token of each for the client of the current request.

    A transaction that has changed rows is known to write. Of any other the server is asked before its commit, for a
    function may write inside a SELECT. Once the connection goes back to its pool the server is asked how far it is:
    one round trip for each unit of work that writes.

    Args:
        engine: the primary's.

    """

    def __init__(self, engine: Engine) -> None:
        self.latest: ConsistencyToken | None = None
        """The token of the last write of this process."""
        event.listen(engine, "begin", self._begins)
        event.listen(engine, "after_cursor_execute", self._executed)
        event.listen(engine, "commit", self._commits)
        event.listen(engine, "rollback", self._rolls_back)
        event.listen(engine, "handle_error", self._fails)
        event.listen(engine, "reset", self._goes_back)

    @staticmethod
    def _begins(conn: Connection) -> None:
        work = _work(conn)
        work.has_committed |= work.is_committing
        work.has_run = work.has_changed = work.is_committing = False

    @staticmethod
    def _executed(
        conn: Connection,
        cursor: DBAPICursor,
        statement: str,
        parameters: object,
        *rest: object,  # noqa: ARG004  # the event's signature
    ) -> None:
        work = _work(conn)
        work.has_run = True
        foreseen = foresee(statement)
        if foreseen is None:
            return
        if foreseen.need is Need.TRANSACTION:
            work.commits_lazily |= _LAZINESS in f"{statement}{parameters}"
        elif foreseen.kind not in _CHANGES or cursor.rowcount != 0:
            # What is no plain change of rows is left to the server, in a transaction; without one, nobody can be asked.
            work.has_changed |= foreseen.kind in _CHANGES
            if _is_in_autocommit(conn):
                work.has_committed = True
                expect_write()

    @staticmethod
    def _commits(conn: Connection) -> None:
        work = _work(conn)
        if not _is_in_autocommit(conn) and (work.has_changed or (work.has_run and _has_written(conn))):
            work.is_committing = True
            expect_write()

    @staticmethod
    def _rolls_back(conn: Connection) -> None:
        if not conn.invalidated:  # else it went away, and what was known of it with it
            _work(conn).is_committing = False

    @staticmethod
    def _fails(context: ExceptionContext) -> None:
        if context.connection is not None and not context.connection.invalidated:
            _work(context.connection).is_committing = False

    def _goes_back(self, connection: DBAPIConnection, record: ConnectionPoolEntry, state: PoolResetState) -> None:
        work: _Work | None = record.info.pop(_WORK, None)
        if work is None or not (work.has_committed or work.is_committing):
            return
        if state.terminate_only or not state.asyncio_safe:
            note_write(None)
            return
        try:
            token = _ask(connection, lazily=work.commits_lazily)
        except Exception as error:  # noqa: BLE001  # what was committed is committed, whatever becomes of the connection
            logger.warning("After a write the primary did not say how far it is (%s).", type(error).__name__)
            note_write(None)
            return
        if self.latest is None or (self.latest.timeline, self.latest.lsn) < (token.timeline, token.lsn):
            self.latest = token
        note_write(token)


def _work(conn: Connection) -> _Work:
    work: _Work | None = conn.info.get(_WORK)
    if work is None:
        work = conn.info[_WORK] = _Work()
    return work


def _is_in_autocommit(conn: Connection) -> bool:
    return conn.get_execution_options().get("isolation_level") == "AUTOCOMMIT"


def _has_written(conn: Connection) -> bool:
    connection = typing.cast(AdaptedConnection, conn.connection.dbapi_connection)
    try:
        return bool(connection.run_async(lambda driver: driver.fetchval(HAS_WRITTEN)))
    except Exception:  # noqa: BLE001  # a transaction that has failed commits nothing; the commit says the rest
        return False


def _ask(connection: DBAPIConnection, *, lazily: bool) -> ConsistencyToken:
    row = typing.cast(AdaptedConnection, connection).run_async(lambda driver: driver.fetchrow(QUESTION))
    # A commit that did not wait for its flush may lie behind what is flushed, but not behind what is inserted.
    lazily = lazily or row["commits_lazily"]
    return ConsistencyToken(
        lsn=last_record_end(row["inserted"], row["inserted_in_file"]) if lazily else row["flushed"],
        timeline=row["timeline"],
        database=identify(row["system"], row["database"]),
        issued_at=int(time.time()),
    )

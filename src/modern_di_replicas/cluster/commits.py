"""Notices each commit that really wrote, however it is made, and asks the primary how far it is then."""

import dataclasses
import logging
import time
import typing

from sqlalchemy import AdaptedConnection, Engine, PoolProxiedConnection, event
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, ExecutionContext
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

from modern_di_replicas.consistency.client import open_record, record_commit
from modern_di_replicas.consistency.token import ConsistencyToken, identify
from modern_di_replicas.consistency.wal import last_record_end
from modern_di_replicas.drivers.known import driver_of
from modern_di_replicas.routing.statements import Need, foresee


logger = logging.getLogger("modern_di_replicas")

QUESTION: typing.Final = """
SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint AS flushed,
       (insert_lsn - '0/0')::bigint AS inserted,
       (pg_walfile_name_offset(insert_lsn)).file_offset AS inserted_in_file,
       current_setting('synchronous_commit') = 'off' AS commits_lazily,
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int AS timeline
FROM (SELECT pg_current_wal_insert_lsn() AS insert_lsn) AS log
"""

FIRST_QUESTION: typing.Final = f"""
SELECT position.*,
       (SELECT system_identifier FROM pg_control_system()) AS system,
       (SELECT oid::bigint FROM pg_database WHERE datname = current_database()) AS database
FROM ({QUESTION}) AS position
"""  # noqa: S608  # a constant in a constant
"""Asks for what a connection never changes as well: reading the control file takes longer than all the rest.

The timeline is not among it: behind a connection pooler, one connection may see a promotion.
"""

HAS_WRITTEN: typing.Final = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL AS has_written"
"""A transaction that wrote has an id. PostgreSQL, chapter 9.27, "System Information Functions"."""

_CHANGES: typing.Final = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE"})
_LAZINESS: typing.Final = "synchronous_commit"

Info = dict[typing.Any, typing.Any]
"""What SQLAlchemy keeps for a connection of the driver, for as long as that lives."""

_WORK: typing.Final = "modern_di_replicas.work"
_DATABASE: typing.Final = "modern_di_replicas.database"


@dataclasses.dataclass(slots=True)
class _Work:
    """What the transaction under event_name on one connection has done."""

    has_changed: bool = False
    """Whether it has changed rows, as far as the client side can see."""
    last_change: DBAPICursor | None = None
    """Of the last statement that may have changed rows: how many they were, it knows when it has run."""
    commits_lazily: bool = False
    """Whether its commit may return before it is flushed: it has set `synchronous_commit`."""
    commits_itself: bool = False
    """Whether a statement was committed by itself, in autocommit."""

    def changes(self, cursor: DBAPICursor) -> None:
        self.has_changed = self.is_known_to_write
        self.last_change = cursor

    @property
    def is_known_to_write(self) -> bool:
        return self.has_changed or (self.last_change is not None and self.last_change.rowcount != 0)


class Writes:
    """Notices the writes on one engine, and notes a token of each for the client of the current request.

    A transaction that has changed rows is known to write. Of any other the server is asked before its commit, for a
    function may write inside a SELECT. After the commit the server is asked how far it is: one round trip for each
    transaction that writes.

    SQLAlchemy has no event after a commit, and listeners of its connection events make every statement slower; so
    this stands around `Dialect.do_commit` and `do_rollback` of the engine's own dialect.

    Args:
        engine: the primary's.

    """

    def __init__(self, engine: Engine) -> None:
        self.latest: ConsistencyToken | None = None
        """The token of the last write of this process."""
        for event_name in ("do_execute", "do_executemany"):
            event.listen(engine, event_name, self._executes)
        event.listen(engine, "do_execute_no_params", self._executes_bare)
        event.listen(engine, "reset", self._goes_back)
        self._do_commit, self._do_rollback = engine.dialect.do_commit, engine.dialect.do_rollback
        self._driver = driver_of(engine)
        dialect = typing.cast(typing.Any, engine.dialect)  # a method of one object is replaced, and mypy minds
        dialect.do_commit, dialect.do_rollback = self._commits, self._rolls_back

    def _executes(self, cursor: DBAPICursor, statement: str, parameters: object, context: ExecutionContext) -> None:
        connection = context.root_connection
        info = _info(connection.connection)
        work: _Work | None = info.get(_WORK)
        if work is None:
            work = info[_WORK] = _Work()
        foreseen = foresee(statement)
        if foreseen is None:
            return
        if foreseen.need is Need.TRANSACTION:
            work.commits_lazily |= _LAZINESS in f"{statement}{parameters}"
            return
        if foreseen.kind in _CHANGES:
            work.changes(cursor)
        if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
            # There is no commit to wait for; nor could anybody be asked whether anything else has written.
            work.commits_itself = True
            open_record()

    def _executes_bare(self, cursor: DBAPICursor, statement: str, context: ExecutionContext) -> None:
        self._executes(cursor, statement, None, context)

    def _commits(self, connection: PoolProxiedConnection) -> None:
        info = _info(connection)
        work = _take(info)
        writes = work is not None and (work.is_known_to_write or self._has_written(connection))
        self._do_commit(connection)
        if work is not None and writes:
            self._note(connection.dbapi_connection, info, lazily=work.commits_lazily)

    def _rolls_back(self, connection: PoolProxiedConnection) -> None:
        _take(_info(connection))
        self._do_rollback(connection)

    def _goes_back(self, connection: DBAPIConnection, record: ConnectionPoolEntry, state: PoolResetState) -> None:
        work: _Work | None = record.info.pop(_WORK, None)
        if work is None or not work.commits_itself:
            return
        if state.terminate_only or not state.asyncio_safe:
            record_commit(None)
        else:
            self._note(connection, record.info, lazily=work.commits_lazily)

    def _has_written(self, connection: PoolProxiedConnection) -> bool:
        adapted = typing.cast(AdaptedConnection, connection.dbapi_connection)
        try:
            row = adapted.run_async(lambda opened: self._driver.fetch_row(opened, HAS_WRITTEN))
        except Exception:  # noqa: BLE001  # a transaction that has failed commits nothing; the commit says the rest
            return False
        return bool(row["has_written"])

    def _note(self, connection: DBAPIConnection | None, info: Info, *, lazily: bool) -> None:
        try:
            token = self._ask(typing.cast(AdaptedConnection, connection), info, lazily=lazily)
        except Exception as error:  # noqa: BLE001  # what was committed is committed, whatever becomes of the connection
            logger.warning("After a write the primary did not say how far it is (%s).", type(error).__name__)
            record_commit(None)
            return
        latest = self.latest
        is_of_database = latest is not None and latest.database == token.database  # else its cluster was replaced
        if latest is None or not is_of_database or (latest.timeline, latest.lsn) < (token.timeline, token.lsn):
            self.latest = token
        record_commit(token)

    def _ask(self, connection: AdaptedConnection, info: Info, *, lazily: bool) -> ConsistencyToken:
        database: str | None = info.get(_DATABASE)
        question = QUESTION if database is not None else FIRST_QUESTION
        row = connection.run_async(lambda opened: self._driver.fetch_row(opened, question))
        if database is None:
            database = info[_DATABASE] = identify(row["system"], row["database"])
        # A commit that did not wait for its flush may lie behind what is flushed, but not behind what is inserted.
        lazily = lazily or row["commits_lazily"]
        return ConsistencyToken(
            lsn=last_record_end(row["inserted"], row["inserted_in_file"]) if lazily else row["flushed"],
            timeline=row["timeline"],
            database=database,
            issued_at=int(time.time()),
        )


def _info(connection: PoolProxiedConnection) -> Info:
    """Return what is kept for as long as a connection lives."""
    try:
        return connection.info
    except NotImplementedError:  # the one on which SQLAlchemy learns the version, before a pool has it
        return {}


def _take(info: Info) -> _Work | None:
    """Return what a transaction has done, at its end; None when that is nothing, or was committed by itself."""
    work: _Work | None = info.get(_WORK)
    if work is None or work.commits_itself:
        return None
    del info[_WORK]
    return work

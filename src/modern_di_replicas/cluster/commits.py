"""Detect each commit that may have written, however it is made, and ask the primary for its position."""

import dataclasses
import functools
import logging
import math
import time
import typing

from sqlalchemy import Dialect, Engine, PoolProxiedConnection, event
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, ExecutionContext
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

from modern_di_replicas.cluster.direct_use import COMMIT, EXPECTED, Info, info_of, watch_driver
from modern_di_replicas.cluster.failures import reason_of
from modern_di_replicas.cluster.questions import find_missing, flushed, inserted, system, timeline_of_primary
from modern_di_replicas.cluster.waiting import ask
from modern_di_replicas.consistency.client import Client, Write, current_client
from modern_di_replicas.consistency.token import ConsistencyToken, identify, later
from modern_di_replicas.consistency.wal import last_record_end
from modern_di_replicas.drivers.driver import Row
from modern_di_replicas.drivers.known import driver_of
from modern_di_replicas.errors import TransactionRolledBackError
from modern_di_replicas.routing.statements import Need, commits, foresee, may_write


logger = logging.getLogger("modern_di_replicas")


@functools.lru_cache
def position(missing: frozenset[str], *, with_identity: bool) -> str:
    """Return the question for the primary's position after a commit.

    The timeline is asked for each time: behind a connection pooler, one connection may see a promotion.

    Args:
        missing: the sources that the server does not offer.
        with_identity: include the system identifier and the database, which never change on a connection: reading the
            control file takes longer than all the rest.

    """
    identity = f", {system(missing)} AS system, pg_catalog.current_database() AS database" if with_identity else ""
    return f"""
SELECT {flushed(missing)} AS flushed,
       inserted,
       inserted % pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')) AS inserted_in_file,
       pg_catalog.current_setting('synchronous_commit') = 'off' AS commits_unflushed,
       {timeline_of_primary(missing)} AS timeline{identity}
FROM (SELECT {inserted(missing)} AS inserted) AS log
"""  # noqa: S608  # constants in a constant


WARNING_INTERVAL: typing.Final = 60.0
"""Seconds between two warnings that the primary did not return its position."""

_SETTING: typing.Final = "synchronous_commit"

_NOT_COMMITTED: typing.Final = ("23", "40")
"""SQLSTATE classes of a commit that did not happen: a deferred constraint, and a transaction rollback."""
_COMPLETION_UNKNOWN: typing.Final = "40003"

_WORK: typing.Final = "modern_di_replicas.work"
_DATABASE: typing.Final = "modern_di_replicas.database"
_PREPARED_DIRECTLY: typing.Final = "modern_di_replicas.prepared_directly"


@dataclasses.dataclass(slots=True, weakref_slot=True, eq=False)
class _Work:
    """The work on one connection since its last commit or rollback, or since its checkout."""

    may_have_written: bool = False
    """Whether a statement was sent that is not known to write nothing."""
    commits_unflushed: bool = False
    """Whether its commit may return before it is flushed: it has set `synchronous_commit`."""
    writes: dict[Client, Write] = dataclasses.field(default_factory=dict)
    """Commits that were sent and whose position is not known yet."""
    writers: set[Client] = dataclasses.field(default_factory=set)
    """The clients that did this work."""

    def wrote(self) -> None:
        """Note that the current client has sent a statement that may write."""
        self.may_have_written = True
        client = current_client()
        if client not in self.writers:
            self.writers.add(client)
            client.begin_uncommitted(self)

    def ended(self) -> None:
        """Note that it was committed, or rolled back."""
        for client in self.writers:
            client.end_uncommitted(self)
        self.writers.clear()

    def begin_write(self) -> bool:
        """Note that the current client is about to commit; return whether that was not noted already."""
        client = current_client()
        if client in self.writes:
            return False
        self.writes[client] = client.begin_write()
        return True


class Writes:
    """Detects the writes on one engine, and records a token of each for the client of the current request.

    A transaction that ran anything but reads (see `may_write`) counts as a write. After its commit the server is asked
    for its position: one round trip for each transaction that writes. The query is never sent inside a transaction: if
    it failed there, PostgreSQL would roll the transaction back. From the moment the COMMIT is sent until the position
    is known, the client's position is unknown, whatever interrupts it.

    In autocommit, and where the driver's connection is used directly, each statement may be a commit, and so is a
    COMMIT that the application sends as a statement; the server is asked when the connection goes back to the pool.

    SQLAlchemy has no event after a commit, and listeners of its connection events make every statement slower; so this
    wraps `Dialect.do_commit` and `do_rollback` of the engine's own dialect.

    Args:
        engine: the engine of the primary.

    """

    def __init__(self, engine: Engine) -> None:
        self._warned_at = -math.inf
        self.latest: ConsistencyToken | None = None
        """The token of the last write of this process."""
        watch_driver(engine, self._used_directly)  # first, so that a commit it refuses is not recorded
        for event_name in ("do_execute", "do_executemany"):
            event.listen(engine, event_name, self._executes)
        event.listen(engine, "do_execute_no_params", self._executes_bare)
        event.listen(engine, "reset", self._returned)
        self._do_commit, self._do_rollback = engine.dialect.do_commit, engine.dialect.do_rollback
        self._driver = driver_of(engine)
        self._dialect: Dialect = engine.dialect
        self._missing: frozenset[str] = frozenset()
        """The sources that the server does not offer."""
        dialect = typing.cast(typing.Any, engine.dialect)  # replaces methods of one object, which mypy refuses
        dialect.do_commit, dialect.do_rollback = self._commits, self._rolls_back

    def _executes(self, cursor: DBAPICursor, statement: str, parameters: object, context: ExecutionContext) -> None:  # noqa: ARG002  # the event's signature
        if may_write(statement):
            connection = context.root_connection.connection
            info = info_of(connection)
            info[EXPECTED] = statement
            work = _work(info)
            work.wrote()
            opened = typing.cast(DBAPIConnection, connection.dbapi_connection)
            if commits(statement) or context.dialect.detect_autocommit_setting(opened):
                work.begin_write()
            return
        foreseen = foresee(statement)
        if foreseen is not None and foreseen.need is Need.TRANSACTION and _SETTING in f"{statement}{parameters}":
            _work(info_of(context.root_connection.connection)).commits_unflushed = True

    def _executes_bare(self, cursor: DBAPICursor, statement: str, context: ExecutionContext) -> None:
        self._executes(cursor, statement, None, context)

    def _used_directly(self, info: Info, statement: str | None) -> None:
        work = _work(info)
        if statement != COMMIT:
            # A prepared statement may be executed again later without being reported.
            info[_PREPARED_DIRECTLY] = True
        elif not (work.may_have_written or info.get(_PREPARED_DIRECTLY)):
            return
        work.commits_unflushed = True  # settings are not tracked here either
        work.begin_write()

    def _commits(self, connection: PoolProxiedConnection) -> None:
        info = info_of(connection)
        if info.get(_PREPARED_DIRECTLY):
            _work(info).may_have_written = True
        work: _Work | None = info.get(_WORK)
        is_first = work is not None and work.may_have_written and work.begin_write()
        info[EXPECTED] = COMMIT
        try:
            self._do_commit(connection)
        except Exception as error:
            if work is not None and is_first and self._is_not_committed(error):
                work.writes.pop(current_client()).did_not_happen()
            raise
        finally:
            info[EXPECTED] = None
        if work is not None:
            work.ended()
            del info[_WORK]
            if work.writes:
                self._note(connection.dbapi_connection, connection, info, work)

    def _rolls_back(self, connection: PoolProxiedConnection) -> None:
        info = info_of(connection)
        work: _Work | None = info.get(_WORK)
        if work is not None:
            work.may_have_written = False
            work.ended()
            if not work.writes:
                del info[_WORK]
        info[EXPECTED] = None
        self._do_rollback(connection)

    def _returned(self, connection: DBAPIConnection, record: ConnectionPoolEntry | None, state: PoolResetState) -> None:
        if record is None:
            return  # it was detached from its pool, and is closed now
        info = info_of(record)
        work: _Work | None = info.pop(_WORK, None)
        info[EXPECTED] = None
        if work is not None:
            work.ended()
        if work is None or not work.writes or state.terminate_only or not state.asyncio_safe:
            return
        # On this connection the answer follows every commit that was sent, also one that timed out.
        if self._driver.is_closed(self._dialect.get_driver_connection(connection)):
            return  # it answers no query, and the pool replaces it
        if not state.transaction_was_reset:
            connection.rollback()  # as the pool would do next; a failed transaction answers no query
        self._note(connection, record, info, work)

    def _is_not_committed(self, error: Exception) -> bool:
        if isinstance(error, TransactionRolledBackError):
            return True
        state = self._driver.sqlstate(error) or ""
        return state.startswith(_NOT_COMMITTED) and state != _COMPLETION_UNKNOWN

    def _note(
        self,
        connection: DBAPIConnection | None,
        pooled: PoolProxiedConnection | ConnectionPoolEntry,
        info: Info,
        work: _Work,
    ) -> None:
        for write in work.writes.values():
            write.committed()
        try:
            token = self._ask(typing.cast(DBAPIConnection, connection), info, unflushed=work.commits_unflushed)
        except Exception as error:  # noqa: BLE001  # what was committed is committed, whatever becomes of the connection
            now = time.monotonic()
            is_due = now - self._warned_at >= WARNING_INTERVAL
            if is_due:
                self._warned_at = now
            level = logging.WARNING if is_due else logging.DEBUG
            logger.log(level, "The primary did not return its position after a commit (%s).", reason_of(error))
            pooled.invalidate(error, soft=True)  # at its next checkout; it stays usable until then
            return
        self.latest = later(self.latest, token)
        for write in work.writes.values():
            write.known(token)

    def _ask(self, connection: DBAPIConnection, info: Info, *, unflushed: bool) -> ConsistencyToken:
        database: str | None = info.get(_DATABASE)
        row = ask(
            self._dialect,
            connection,
            lambda opened: self._fetch_position(opened, info, with_identity=database is None),
        )
        if database is None:
            database = info[_DATABASE] = identify(row["system"], row["database"])
        # A commit that did not wait for its flush may be after the flush position, but not after the insert position.
        unflushed = unflushed or row["commits_unflushed"]
        return ConsistencyToken(
            lsn=last_record_end(row["inserted"], row["inserted_in_file"]) if unflushed else row["flushed"],
            timeline=row["timeline"],
            database=database,
            issued_at=int(time.time()),
        )

    async def _fetch_position(self, opened: object, info: Info, *, with_identity: bool) -> Row:
        async def fetch(question: str) -> Row:
            info[EXPECTED] = question
            return await self._driver.fetch_row(opened, question)

        try:
            return await fetch(position(self._missing, with_identity=with_identity))
        except Exception as error:
            missing, _ = await find_missing(self._driver, fetch, error)
            if missing <= self._missing:
                raise
            self._missing = missing
        return await fetch(position(self._missing, with_identity=with_identity))


def _work(info: Info) -> _Work:
    work: _Work | None = info.get(_WORK)
    if work is None:
        work = info[_WORK] = _Work()
    return work

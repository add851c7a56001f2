"""How a session reads from one replica."""

import collections.abc
import contextlib
import typing
import weakref

from sqlalchemy import Connection, Engine, ExceptionContext, PoolProxiedConnection, event
from sqlalchemy.engine.interfaces import DBAPIConnection, ExecutionContext
from sqlalchemy.exc import DBAPIError

from modern_di_replicas.cluster.failures import Failure, classify_statement, note_checkout_failure, note_failure
from modern_di_replicas.cluster.freshness import FreshRead
from modern_di_replicas.cluster.pools.attribution import attribute_checkouts
from modern_di_replicas.cluster.pools.replaceable import OF_CHECKOUT
from modern_di_replicas.cluster.questions import about_server
from modern_di_replicas.cluster.waiting import ask
from modern_di_replicas.drivers.known import driver_of
from modern_di_replicas.routing.statements import Foreseen, Need, foresee
from modern_di_replicas.settings import ReadIsolation


class NotSent(Exception):  # noqa: N818  # a signal to the session, never seen outside
    """A session's statement was not sent to a replica, and has to run on the primary."""

    locks_rows = False
    """Whether it locks rows, which are then read again: they are locked to be changed."""


class StatementNotForReplica(NotSent):
    """The statement needs the primary or a transaction."""

    def __init__(self, foreseen: Foreseen) -> None:
        super().__init__(foreseen)
        self.foreseen = foreseen
        self.locks_rows = foreseen.locks_rows


class StatementStreams(Exception):  # noqa: N818  # a signal as well
    """A session's statement asks for a server-side cursor, and its connection is in autocommit."""


class ConnectionNotFresh(NotSent):
    """The connection leads to a server that is not fresh enough for the session."""


class _Use(typing.NamedTuple):
    """How a session uses a connection."""

    autocommit: bool
    stands_alone: bool
    streams: bool
    connection: weakref.ref[Connection]


class SessionReads:
    """The connections on which sessions read from one replica, and the check of their statements.

    Args:
        engine: the engine of the replica.
        isolation: how its sessions read.

    """

    def __init__(self, engine: Engine, *, isolation: ReadIsolation) -> None:
        self._isolation = isolation
        self.driver, self._dialect = driver_of(engine), engine.dialect
        # Not in an event: listeners to "before_cursor_execute" would see a statement that is not sent, listeners to
        # "handle_error" the signal, and any listener makes SQLAlchemy check for all events of a statement.
        engine.dialect.execution_ctx_cls = _checking(engine.dialect.execution_ctx_cls, self._check_statement)
        event.listen(engine, "handle_error", self._classify_error)
        event.listen(engine, "handle_error", self._end_prepared_statement)
        attribute_checkouts(engine)
        # SQLAlchemy has no event around a rollback; the dialect belongs to this engine alone.
        self._do_rollback = engine.dialect.do_rollback
        typing.cast(typing.Any, engine.dialect).do_rollback = self._roll_back

    def connect(self, engine: Engine, *, autocommit: bool, stands_alone: bool, streams: bool) -> Connection:
        """Return a connection for a session to read on.

        Args:
            engine: the engine of the replica, maybe with options.
            autocommit: whether it is in autocommit.
            stands_alone: whether no statement of the session relies on the one before.
            streams: whether it is for streamed rows.

        """
        try:
            connection = engine.connect()
        except Exception as error:
            note_checkout_failure(error, engine)
            raise
        try:
            # The session joins an open transaction, and does not end it.
            connection.begin()
        except BaseException:
            connection.close()
            raise
        connection.info[OF_CHECKOUT] = _Use(autocommit, stands_alone, streams, weakref.ref(connection))
        return connection

    def is_fresh(self, connection: Connection, read: FreshRead) -> bool:
        """Return whether the server of a connection is fresh enough; one that fails to answer is not."""
        question = about_server(frozenset(), briefly=True)
        opened = typing.cast(DBAPIConnection, connection.connection.dbapi_connection)
        unknown: tuple[type[Exception], ...] = (OSError, *self.driver.errors)
        try:
            row = ask(connection.dialect, opened, lambda driven: self.driver.fetch_row(driven, question))
        except unknown:  # the freshness of that server is unknown, so the primary serves the read
            connection.invalidate()
            return False
        return read.is_satisfied_by(row)

    @staticmethod
    def _check_statement(context: ExecutionContext, use: _Use) -> None:
        """Check a statement before it is sent."""
        foreseen = foresee(context.statement)
        if foreseen is not None and (use.stands_alone or foreseen.need is not Need.TRANSACTION):
            context.cursor.close()
            raise StatementNotForReplica(foreseen)
        if use.autocommit and not use.streams and asks_to_stream(context.execution_options):
            context.cursor.close()
            raise StatementStreams

    def _roll_back(self, connection: PoolProxiedConnection) -> None:
        """Roll back; on a replica there is nothing to undo, so a failure costs only the connection."""
        if self.driver.has_nothing_to_roll_back(self._opened(connection)):
            return
        try:
            self._do_rollback(connection)
        except Exception as error:
            # The error would hide why a session rolls back. Core raises it.
            use = _use_of(connection)
            ours = None if use is None else use.connection()
            if ours is None or ours.closed or ours.invalidated:
                raise
            ours.invalidate(error)

    def _classify_error(self, context: ExceptionContext) -> None:
        """Classify an error of the driver, and invalidate a lost connection."""
        error, connection = context.original_exception, context.connection
        if connection is None:
            note_checkout_failure(error, typing.cast(Engine, context.engine))  # which SQLAlchemy wraps now
            return
        if connection.closed or connection.invalidated:
            return
        if not isinstance(context.sqlalchemy_exception, DBAPIError):
            # SQLAlchemy does not wrap the driver's errors of a server-side cursor.
            is_fetching = getattr(getattr(context.execution_context, "cursor", None), "server_side", False)
            if not (is_fetching and isinstance(error, self.driver.errors)):
                return
        if self.driver.is_lost(error) or self.driver.is_closed(self._opened(connection.connection)):
            context.is_disconnect = True
        failure = classify_statement(self.driver.sqlstate(error), lost=context.is_disconnect, text=str(error))
        context.is_disconnect = context.is_disconnect or failure is Failure.LOST
        note_failure(error, failure)

    def _end_prepared_statement(self, context: ExceptionContext) -> None:
        """End a statement that the driver prepared and then could not execute, such as for an argument out of range.

        In autocommit nothing else does: the pooled connection would hold the lock of that statement until its next use,
        and an ALTER TABLE would block the replay for as long.
        """
        if context.connection is None or context.is_disconnect or not self._is_autocommit(context.connection):
            return
        if not isinstance(context.sqlalchemy_exception, DBAPIError):
            return
        if self.driver.may_hold_a_statement(context.original_exception):
            with contextlib.suppress(OSError, *self.driver.errors):  # on a lost connection it has ended
                pooled = context.connection.connection
                ask(context.dialect, typing.cast(DBAPIConnection, pooled.dbapi_connection), self.driver.end_statement)

    def _opened(self, connection: PoolProxiedConnection) -> object:
        """Return the driver's connection; `driver_connection` is None for one that was detached from its pool."""
        return self._dialect.get_driver_connection(typing.cast(DBAPIConnection, connection.dbapi_connection))

    def _is_autocommit(self, connection: Connection) -> bool:
        return bool(connection.get_execution_options().get("isolation_level", self._isolation) == "AUTOCOMMIT")


def asks_to_stream(options: collections.abc.Mapping[str, typing.Any]) -> bool:
    """Return whether a statement with these execution options streams its rows."""
    return bool(options.get("stream_results") or options.get("yield_per"))


def _use_of(connection: Connection | PoolProxiedConnection) -> _Use | None:
    try:
        use: _Use | None = connection.info.get(OF_CHECKOUT)
    except NotImplementedError:  # SQLAlchemy's first connection, which is not in a pool yet
        return None
    return use


def _checking(
    base: type[ExecutionContext], check: collections.abc.Callable[[ExecutionContext, _Use], None]
) -> type[ExecutionContext]:
    """Return a dialect's execution context class with a check before each execution for a session."""

    def pre_exec(context: ExecutionContext) -> None:
        use = _use_of(context.root_connection)
        if use is not None:  # Core on the replica's engine is not checked
            check(context, use)
        base.pre_exec(context)

    return type(base.__name__, (base,), {"pre_exec": pre_exec})

"""How a session reads from one replica."""

import collections.abc
import contextlib
import typing
import weakref

from sqlalchemy import Connection, Engine, ExceptionContext, PoolProxiedConnection, event
from sqlalchemy.engine.interfaces import DBAPIConnection, ExecutionContext
from sqlalchemy.exc import DBAPIError

from modern_di_replicas.cluster.failures import Failure, blame, blame_checkout, judge, judge_connecting
from modern_di_replicas.cluster.freshness import FreshRead
from modern_di_replicas.cluster.pools.replaceable import OF_CHECKOUT
from modern_di_replicas.cluster.questions import about_server
from modern_di_replicas.cluster.waiting import ask
from modern_di_replicas.drivers.known import driver_of
from modern_di_replicas.routing.statements import Foreseen, Need, foresee
from modern_di_replicas.settings import ReadIsolation


class NotSent(Exception):  # noqa: N818  # a signal to the session, never seen outside
    """A session's statement was not sent to a replica, and has to run on the primary."""

    locks_rows = False
    """Whether it locks rows, which are then read anew: they are locked to be changed."""


class StatementNotForReplica(NotSent):
    """It needs something that a replica cannot give."""

    def __init__(self, foreseen: Foreseen) -> None:
        super().__init__(foreseen)
        self.foreseen = foreseen
        self.locks_rows = foreseen.locks_rows


class StatementStreams(Exception):  # noqa: N818  # a signal as well
    """A session's statement was about to be sent in autocommit, and asks for a server-side cursor."""


class ConnectionNotFresh(NotSent):
    """The connection for it leads to a server that has not what the session has to read."""


class _Use(typing.NamedTuple):
    """What a connection of a session is for."""

    autocommit: bool
    stands_alone: bool
    streams: bool
    connection: weakref.ref[Connection]


class SessionReads:
    """The connections on which sessions read from one replica, and the check of what they are about to send there.

    Args:
        engine: the engine of the replica.
        isolation: how its sessions read.

    """

    def __init__(self, engine: Engine, *, isolation: ReadIsolation) -> None:
        self._isolation = isolation
        self.driver = driver_of(engine)
        # Not in an event: listeners to "before_cursor_execute" would see a statement that is not sent, listeners to
        # "handle_error" the signal, and SQLAlchemy looks at every point of a statement for who listens to any event.
        engine.dialect.execution_ctx_cls = _checking(engine.dialect.execution_ctx_cls, self._check_statement)
        event.listen(engine, "handle_error", self._judge_error)
        event.listen(engine, "handle_error", self._end_what_was_begun)
        event.listen(engine, "invalidate", self._judge_checkout)
        # SQLAlchemy has no event in the place of a rollback, nor around the driver's `connect` alone; these are of the
        # engine's own dialect.
        self._do_rollback, self._connect_driver = engine.dialect.do_rollback, engine.dialect.connect
        dialect = typing.cast(typing.Any, engine.dialect)
        dialect.do_rollback, dialect.connect = self._roll_back, self._open
        self._driver_connection = engine.dialect.get_driver_connection

    def connect(self, engine: Engine, *, autocommit: bool, stands_alone: bool, streams: bool) -> Connection:
        """Return a connection for a session to read on.

        Args:
            engine: that of the replica, with options of its own perhaps.
            autocommit: whether it is one in autocommit.
            stands_alone: whether no statement of the session relies on the one before.
            streams: whether it is for the rows that come one by one.

        """
        try:
            connection = engine.connect()
        except Exception as error:
            blame_checkout(error, engine)
            raise
        try:
            # The session joins a transaction that is under way, and leaves its end to us.
            connection.begin()
        except BaseException:
            connection.close()
            raise
        connection.info[OF_CHECKOUT] = _Use(autocommit, stands_alone, streams, weakref.ref(connection))
        return connection

    def is_fresh(self, connection: Connection, read: FreshRead) -> bool:
        """Return whether the server that a connection leads to is fresh enough; one that cannot say so is not."""
        question = about_server(frozenset(), briefly=True)
        opened = typing.cast(DBAPIConnection, connection.connection.dbapi_connection)
        unknown: tuple[type[Exception], ...] = (OSError, *self.driver.errors)
        try:
            row = ask(connection.dialect, opened, lambda driven: self.driver.fetch_row(driven, question))
        except unknown:  # nothing is known of that server now, so the primary is to read
            connection.invalidate()
            return False
        return read.is_shown_by(row)

    @staticmethod
    def _check_statement(context: ExecutionContext, use: _Use) -> None:
        """Check the text that is about to be sent."""
        foreseen = foresee(context.statement)
        if foreseen is not None and (use.stands_alone or foreseen.need is not Need.TRANSACTION):
            context.cursor.close()
            raise StatementNotForReplica(foreseen)
        if use.autocommit and not use.streams and asks_to_stream(context.execution_options):
            context.cursor.close()
            raise StatementStreams

    def _roll_back(self, connection: PoolProxiedConnection) -> None:
        """Roll back; on a replica there is nothing to undo, so one that cannot has lost nothing but the connection."""
        if self.driver.has_nothing_to_roll_back(connection.driver_connection):
            return
        try:
            self._do_rollback(connection)
        except Exception as error:
            # Of whatever kind, it would hide why a session rolls back. Core's users see it.
            use: _Use | None = connection.info.get(OF_CHECKOUT)
            ours = None if use is None else use.connection()
            if ours is None or ours.closed or ours.invalidated:
                raise
            ours.invalidate(error)

    def _open(self, *args: typing.Any, **options: typing.Any) -> DBAPIConnection:
        try:
            return self._connect_driver(*args, **options)
        except Exception as error:
            blame(error, judge_connecting(error, self.driver.sqlstate(error)))
            raise

    def _judge_checkout(self, connection: DBAPIConnection, record: object, error: BaseException | None) -> None:  # noqa: ARG002  # the event's signature
        """Note what an error means that a listener to "checkout" has raised, which makes the pool give up a connection.

        An error of a statement has its note already.
        """
        if error is not None:
            is_gone = self.driver.is_lost(error) or self.driver.is_closed(self._driver_connection(connection))
            blame(error, Failure.LOST if is_gone else Failure.OWN)

    def _judge_error(self, context: ExceptionContext) -> None:
        """Note on an error of the driver what it means, and give up a connection that is lost."""
        error, connection = context.original_exception, context.connection
        if connection is None:
            blame_checkout(error, typing.cast(Engine, context.engine))  # which SQLAlchemy wraps now
            return
        if connection.closed or connection.invalidated:
            return
        if not isinstance(context.sqlalchemy_exception, DBAPIError):
            # Only from a server-side cursor SQLAlchemy passes the driver's errors on as they are.
            is_fetching = getattr(getattr(context.execution_context, "cursor", None), "server_side", False)
            if not (is_fetching and isinstance(error, self.driver.errors)):
                return
        if self.driver.is_lost(error) or self.driver.is_closed(connection.connection.driver_connection):
            context.is_disconnect = True
        failure = judge(self.driver.sqlstate(error), lost=context.is_disconnect, text=str(error))
        context.is_disconnect = context.is_disconnect or failure is Failure.LOST
        blame(error, failure)

    def _end_what_was_begun(self, context: ExceptionContext) -> None:
        """End a statement that the driver prepared and then could not execute, such as for an argument out of range.

        In autocommit nothing else does: the pooled connection would hold the lock of that statement until its next use,
        and a change of the table would hold up the replay for as long.
        """
        if context.connection is None or context.is_disconnect or not self._is_autocommit(context.connection):
            return
        if not isinstance(context.sqlalchemy_exception, DBAPIError):
            return
        if self.driver.may_hold_a_statement(context.original_exception):
            with contextlib.suppress(OSError, *self.driver.errors):  # a lost connection has ended it
                pooled = context.connection.connection
                ask(context.dialect, typing.cast(DBAPIConnection, pooled.dbapi_connection), self.driver.end_statement)

    def _is_autocommit(self, connection: Connection) -> bool:
        return bool(connection.get_execution_options().get("isolation_level", self._isolation) == "AUTOCOMMIT")


def asks_to_stream(options: collections.abc.Mapping[str, typing.Any]) -> bool:
    """Return whether the rows of a statement with these execution options are to come one by one."""
    return bool(options.get("stream_results") or options.get("yield_per"))


def _checking(
    base: type[ExecutionContext], check: collections.abc.Callable[[ExecutionContext, _Use], None]
) -> type[ExecutionContext]:
    """Return the class of a dialect's execution contexts with a check before each execution for a session."""

    def pre_exec(context: ExecutionContext) -> None:
        try:
            use: _Use | None = context.root_connection.info.get(OF_CHECKOUT)
        except NotImplementedError:  # the one on which SQLAlchemy learns the version, before a pool has it
            use = None
        if use is not None:  # Core on the replica's engine is used knowingly
            check(context, use)
        base.pre_exec(context)

    return type(base.__name__, (base,), {"pre_exec": pre_exec})

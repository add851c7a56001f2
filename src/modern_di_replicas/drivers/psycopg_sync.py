"""psycopg 3, and SQLAlchemy's synchronous dialect for it."""

import asyncio
import contextlib
import contextvars
import inspect
import math
import os
import socket
import threading
import typing

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import Engine

from modern_di_replicas.drivers.driver import Driver, Report, Row
from modern_di_replicas.drivers.opening import Opening, TerminatedWhileOpeningError
from modern_di_replicas.drivers.psycopg import Psycopg
from modern_di_replicas.drivers.psycopg_sync_connection import ReportingConnection, reporting


Connection: typing.TypeAlias = psycopg.Connection[typing.Any]


class PsycopgSync(Psycopg):
    """The connections of synchronous engines: its coroutines block, and never suspend.

    The monitor's connections are asynchronous, in synchronous applications as well.
    """

    def make_reporting(self, arguments: dict[str, typing.Any]) -> None:
        arguments["connection_class"] = ReportingConnection
        arguments["cursor_factory"] = reporting(arguments.get("cursor_factory") or psycopg.Cursor)

    def watch_opening(self, arguments: dict[str, typing.Any], opening: Opening) -> None:
        arguments["opening"] = opening

    def set_up(self, engine: Engine) -> None:
        dialect = typing.cast(typing.Any, engine.dialect)  # replaces methods of one object
        # `psycopg.connect` has a timeout in whole seconds, of at least two, and accepts no password function.
        dialect.connect = _connect
        # See `Psycopg.set_up`.
        set_readonly = dialect.set_readonly
        dialect.set_readonly = lambda connection, value: set_readonly(connection, value or None)

    async def fetch_row(self, connection: typing.Any, question: str) -> Row:  # noqa: ANN401  # see `Driver`
        opened: Connection = connection
        # psycopg would begin a transaction for it.
        begins = not opened.autocommit and opened.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        if begins:
            opened.autocommit = True
        try:
            with opened.cursor(row_factory=dict_row) as cursor:
                cursor.execute(question)
                return typing.cast(Row, cursor.fetchone())
        finally:
            if begins and not opened.closed:
                opened.autocommit = False

    def report(self, connection: typing.Any, to: Report) -> bool:  # noqa: ANN401
        if not isinstance(connection, ReportingConnection):
            return False
        connection.report = to
        return True

    def terminate(self, connection: typing.Any) -> None:  # noqa: ANN401
        opened: Connection = connection
        if opened.lock.acquire(blocking=False):
            try:
                opened.pgconn.finish()
            finally:
                opened.lock.release()
            return
        # Another thread uses it, or waits for its server. Closing the socket would not wake that thread, and its number
        # could be reused; after a shutdown the thread reads the end of the stream, and closes the connection.
        with (
            contextlib.suppress(OSError, psycopg.OperationalError),  # it has just been closed
            socket.socket(fileno=os.dup(opened.fileno())) as duplicate,
        ):
            opened.fileno()  # raises if it was closed: the number may have been reused when it was duplicated
            duplicate.shutdown(socket.SHUT_RDWR)

    async def close(self, connection: typing.Any, *, within: float) -> None:  # noqa: ANN401, ARG002  # nothing is waited for
        connection.close()


class _Connecting:
    """One attempt to connect, in its own thread: that is the only way to end it in time."""

    def __init__(self, connection_class: type[Connection], arguments: dict[str, typing.Any]) -> None:
        self._class = connection_class
        self._arguments = arguments
        self._lock = threading.Lock()
        self._is_given_up = False
        self._ended = threading.Event()
        self._connection: Connection | None = None
        self._error: BaseException | None = None

    def give_up(self) -> None:
        """End the attempt for the waiting thread."""
        with self._lock:
            if self._connection is None and self._error is None:
                self._is_given_up = True
                self._error = TerminatedWhileOpeningError()
        self._ended.set()

    def result(self, timeout: float | None) -> Connection:
        if timeout is not None:
            # So that the thread of an abandoned attempt ends soon; psycopg waits two seconds at least.
            self._arguments.setdefault("connect_timeout", math.ceil(timeout))
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._connect,), name="connecting", daemon=True).start()
        try:
            self._ended.wait(timeout)
        finally:
            with self._lock:
                self._is_given_up = True
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if self._connection is None:
            msg = f"no connection within {timeout:g} s"
            raise TimeoutError(msg)
        return self._connection

    def _connect(self) -> None:
        connection, error = None, None
        try:
            arguments = {**self._arguments}
            if callable(password := arguments.get("password")):
                arguments["password"] = _given(password)
            connection = self._class.connect(**arguments)
        except BaseException as raised:  # noqa: BLE001  # it is raised where the connection is wanted
            error = raised
        with self._lock:
            if self._is_given_up:
                if connection is not None:
                    connection.close()
                return
            self._connection, self._error = connection, error
        self._ended.set()


def _given(password: typing.Any) -> typing.Any:  # noqa: ANN401  # a function, or a coroutine function
    given = password()
    if not inspect.isawaitable(given):
        return given

    async def wait() -> typing.Any:  # noqa: ANN401
        return await given

    return asyncio.run(wait())


def _connect(
    *,
    timeout: float | None = None,
    opening: Opening | None = None,
    connection_class: type[Connection] = psycopg.Connection,
    async_creator_fn: object = None,  # noqa: ARG001  # `Psycopg.connect_args` gives it to both dialects
    **arguments: typing.Any,
) -> Connection:
    connecting = _Connecting(connection_class, arguments)
    with contextlib.nullcontext() if opening is None else opening.attempt(connecting.give_up):
        return connecting.result(timeout)


driver: typing.Final[Driver] = PsycopgSync()

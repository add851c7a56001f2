"""psycopg 3, and SQLAlchemy's asynchronous dialect for it."""

import asyncio
import collections.abc
import contextlib
import inspect
import os
import pathlib
import re
import socket
import traceback
import typing

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import URL, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection

from modern_di_replicas.drivers.driver import ENDING, Driver, Report, Row
from modern_di_replicas.drivers.opening import Opening
from modern_di_replicas.drivers.psycopg_connection import ReportingConnection, reporting


Connection: typing.TypeAlias = psycopg.AsyncConnection[typing.Any]

_KEYWORDS: typing.Final = frozenset(option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults())
"""The parameters of libpq."""

_OF_PSYCOPG: typing.Final = frozenset({"prepare_threshold", "cursor_factory"})

_OWNED: typing.Final = {
    "timeout": "set connect_timeout",
    "connect_timeout": "set connect_timeout of the settings",
    "application_name": "set application_name of the settings",
    **dict.fromkeys(("autocommit", "row_factory", "context", "async_creator_fn"), "remove it: the library sets it"),
    **dict.fromkeys(("conninfo", "dbname", "host", "hostaddr", "port", "user"), "write it into the URL of the server"),
}
"""Parameters that the library or the URL sets."""

_TLS_LEVELS: typing.Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_FILES: typing.Final = frozenset({"passfile", "sslrootcert", "sslcert", "sslkey", "sslcrl"})

_REFUSALS: typing.Final = {
    r"password authentication failed|no password supplied|SASL authentication failed": "28P01",
    r"role .* does not exist|no pg_hba\.conf entry|pg_hba\.conf rejects": "28000",
    r"database .* does not exist|no such database": "3D000",
    r"too many clients|remaining connection slots|too many connections": "53300",
    r"the database system is": "57P03",
}
"""Messages of PostgreSQL and pgbouncer in English: libpq gives no SQLSTATE when connecting fails."""

_UNTRUSTED: typing.Final = re.compile(
    r"certificate verify failed|does not match host name|server does not support SSL, but SSL was required"
)
"""Messages of OpenSSL and libpq in English for a server that `sslmode` does not allow."""


class Psycopg:
    """The driver psycopg 3."""

    scheme = "postgresql+psycopg"
    autocommits_behind_poolers = True  # without a name for the statement, as in `connect_args`
    errors = (psycopg.Error,)
    lost_connection = (OSError, psycopg.OperationalError, psycopg.InterfaceError)

    def parameter_remedy(self, name: str, value: str | tuple[str, ...]) -> str | None:
        if name in ("host", "port", "user", "dbname"):
            return None
        if name in _OF_PSYCOPG:
            return f"remove {name!r} from it, and put it into connect_args: its value is not text"
        if name in _OWNED or name not in _KEYWORDS:
            return f"remove {name!r} from it: {_OWNED.get(name, 'libpq has no such parameter')}"
        return self._value_remedy(name, value)

    def argument_remedy(self, name: str, value: object) -> str | None:
        if name in _OWNED:
            return _OWNED[name]
        if name not in _KEYWORDS | _OF_PSYCOPG:
            instead = {"ssl": "sslmode, sslrootcert and others", "server_settings": "options='-c name=value'"}.get(name)
            return (
                f"use {instead}: psycopg uses libpq's parameters"
                if instead
                else f"remove {name!r}: libpq has no such parameter"
            )
        return self._value_remedy(name, value)

    def _value_remedy(self, name: str, value: object) -> str | None:
        if name == "sslmode" and value not in _TLS_LEVELS:
            return f"use one of {', '.join(_TLS_LEVELS)}"
        if name in _FILES and value != "system" and not pathlib.Path(str(value)).is_file():
            return f"use the path of a file that exists as {name}"
        return None

    def connect_args(
        self,
        given: collections.abc.Mapping[str, typing.Any],
        *,
        application_name: str,
        timeout: float,
        pooled: bool,
    ) -> dict[str, typing.Any]:
        arguments = {**given, "application_name": application_name, "timeout": timeout, "async_creator_fn": _connect}
        if pooled:
            # A statement named on one server connection could be executed on another.
            arguments["prepare_threshold"] = None
        return arguments

    def make_reporting(self, arguments: dict[str, typing.Any]) -> None:
        arguments["connection_class"] = ReportingConnection
        arguments.setdefault("async_creator_fn", _connect)  # psycopg itself has no such argument
        arguments["cursor_factory"] = reporting(arguments.get("cursor_factory") or psycopg.AsyncCursor)

    def watch_opening(self, arguments: dict[str, typing.Any], opening: Opening) -> None:
        arguments["async_creator_fn"] = opening.watched(arguments.get("async_creator_fn", _connect))

    def set_up(self, engine: Engine) -> None:
        # SQLAlchemy's own method awaits, which fails outside of a greenlet and in the garbage collector.
        dialect = typing.cast(typing.Any, engine.dialect)  # replaces a method of one object
        dialect.has_terminate = True
        dialect.do_terminate = lambda adapted: self.terminate(adapted.driver_connection)
        # SQLAlchemy resets a connection to False, for which psycopg begins transactions with READ WRITE; a standby
        # refuses that. With asyncpg False means the server's default, as None does here.
        set_readonly = dialect.set_readonly
        dialect.set_readonly = lambda adapted, value: set_readonly(adapted, value or None)

    def sqlstate(self, error: BaseException) -> str | None:
        original = getattr(error, "orig", error)
        if not isinstance(original, psycopg.Error) or original.sqlstate is not None:
            return getattr(original, "sqlstate", None)
        text = str(original)
        return next((state for message, state in _REFUSALS.items() if re.search(message, text)), None)

    def is_lost(self, error: BaseException) -> bool:
        return isinstance(error, psycopg.Error) and error.diag.severity_nonlocalized in ENDING

    def is_untrusted(self, error: BaseException) -> bool:
        return isinstance(error, psycopg.OperationalError) and bool(_UNTRUSTED.search(str(error)))

    def may_hold_a_statement(self, error: BaseException) -> bool:  # noqa: ARG002  # the protocol's signature
        return False  # parameters are adapted before anything is sent

    def is_stale_plan(self, error: BaseException) -> bool:
        # The message is translated; asyncpg checks the name of the C function that raises it as well.
        return (
            isinstance(error, psycopg.errors.FeatureNotSupported)
            and error.diag.source_function == "RevalidateCachedQuery"
        )

    def forget_plans(self, connection: DBAPIConnection) -> None:
        # psycopg keeps a prepared statement that fails, but drops all of them after a ROLLBACK. There is no
        # transaction, so nothing is rolled back.
        cursor = connection.cursor()
        cursor.execute("ROLLBACK")
        cursor.close()

    def is_in_transaction(self, connection: Connection) -> bool:
        return connection.info.transaction_status in (
            psycopg.pq.TransactionStatus.INTRANS,
            psycopg.pq.TransactionStatus.INERROR,
        )

    async def has_failed(self, connection: Connection) -> bool:
        return connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR

    async def connect(self, url: URL, connect_args: collections.abc.Mapping[str, typing.Any]) -> Connection:
        _, of_url = url.get_dialect()().create_connect_args(url)
        arguments = {name: value for name, value in connect_args.items() if name != "async_creator_fn"}
        return await _connect(**{**of_url, **arguments}, autocommit=True)

    async def fetch_row(self, connection: Connection, question: str) -> Row:
        # psycopg would begin a transaction for it.
        begins = not connection.autocommit and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        if begins:
            await connection.set_autocommit(True)
        try:
            async with connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(question)
                return typing.cast(Row, await cursor.fetchone())
        finally:
            if begins and not connection.closed:
                await connection.set_autocommit(False)

    async def end_statement(self, connection: Connection) -> None:
        """Do nothing: see `may_hold_a_statement`."""

    def report(self, connection: Connection, to: Report) -> bool:
        if not isinstance(connection, ReportingConnection):
            return False
        connection.report = to
        return True

    def has_nothing_to_roll_back(self, connection: Connection) -> bool:
        return connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE

    def descriptor(self, connection: Connection) -> int | None:
        return None if connection.closed else connection.fileno()

    def is_closed(self, connection: Connection) -> bool:
        return connection.closed

    def reports_standby(self, connection: Connection) -> bool:
        return connection.info.parameter_status("in_hot_standby") == "on"

    def terminate(self, connection: Connection) -> None:
        if connection.closed:
            return
        if not connection.lock.locked():
            connection.pgconn.finish()
            return
        # Another task waits on it, and must not lose its socket meanwhile: it reads the end of the stream. A socket
        # that has been reset, or terminated before, is not connected: that task is about to see it.
        with socket.socket(fileno=os.dup(connection.fileno())) as duplicate, contextlib.suppress(OSError):
            duplicate.shutdown(socket.SHUT_RDWR)
        # If that task is cancelled as well, it closes nothing.
        _finish(connection, asyncio.get_running_loop())

    async def close(self, connection: Connection, *, within: float) -> None:  # noqa: ARG002  # nothing is waited for
        await connection.close()


def _finish(connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
    if connection.lock.locked():
        loop.call_later(0.01, _finish, connection, loop)
    else:
        connection.pgconn.finish()


async def _connect(
    *,
    timeout: float | None = None,  # noqa: ASYNC109  # it comes with the other arguments
    password: typing.Any = None,  # noqa: ANN401  # a text, or what returns one, or what awaits one
    connection_class: type[Connection] = psycopg.AsyncConnection,
    **arguments: typing.Any,
) -> Connection:
    async with asyncio.timeout(timeout):
        if callable(password):
            password = password()
        if inspect.isawaitable(password):
            password = await password
        try:
            return await connection_class.connect(password=password, **arguments)
        except BaseException as error:
            # Its frames hold the half-open connection, which is closed with the last reference: a log record or another
            # error may keep this error.
            traceback.clear_frames(error.__traceback__)
            raise


driver: typing.Final[Driver] = Psycopg()

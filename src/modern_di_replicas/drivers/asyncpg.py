"""asyncpg, and SQLAlchemy's dialect for it."""

import collections.abc
import inspect
import pathlib
import ssl
import typing
import weakref

import asyncpg
from sqlalchemy import URL, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection

from modern_di_replicas.drivers.asyncpg_connection import ReportingConnection, reporting
from modern_di_replicas.drivers.driver import ENDING, Driver, Report, Row
from modern_di_replicas.drivers.opening import Opening


_ARGUMENTS: typing.Final = frozenset(inspect.signature(asyncpg.connect).parameters)

_OF_SQLALCHEMY: typing.Final = frozenset(
    {"prepared_statement_cache_size", "prepared_statement_name_func", "async_creator_fn"}
)
"""Arguments that SQLAlchemy's dialect removes before it calls the driver's `connect`."""

_NOT_TEXT: typing.Final = frozenset(
    {
        *("statement_cache_size", "max_cached_statement_lifetime", "max_cacheable_statement_size"),
        *("server_settings", "connection_class", "record_class", "direct_tls"),
    }
)
"""Arguments that are numbers or objects, which a URL cannot hold."""

_OWNED: typing.Final = {
    "timeout": "set connect_timeout",
    "application_name": "set application_name",
    "async_creator_fn": "remove it: the library connects itself",
    "loop": "remove it: connections belong to the running event loop",
    **dict.fromkeys(("dsn", "host", "port", "user", "database"), "write it into the URL of the server"),
}
"""Arguments that the library or the URL sets."""

_TLS_LEVELS: typing.Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def _remedy_of_libpq(name: str) -> str | None:
    if name == "sslmode":
        return "replace sslmode= by ssl=, which has the same levels in asyncpg"
    if name.startswith("ssl") and name != "ssl":
        return f"remove {name!r} from it, and put an SSLContext made of it into connect_args, as 'ssl'"
    if name == "options":
        return "remove 'options' from it, and put its settings into connect_args, as 'server_settings'"
    return None


class Asyncpg:
    """The driver asyncpg."""

    scheme = "postgresql+asyncpg"
    autocommits_behind_poolers = False  # it parses and executes in two message trains
    errors = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
    lost_connection = (
        *(OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError),
        # It shuts down, or starts: another server may be the primary by now.
        *(asyncpg.CannotConnectNowError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError),
    )

    def __init__(self) -> None:
        self._pooled: weakref.WeakSet[typing.Any] = weakref.WeakSet()
        """The connections behind a transaction pooler."""

    def parameter_remedy(self, name: str, value: str | tuple[str, ...]) -> str | None:
        if (of_libpq := _remedy_of_libpq(name)) is not None:
            return of_libpq
        if name in _NOT_TEXT:
            return f"remove {name!r} from it, and put it into connect_args: its value is not text"
        if name in ("host", "port", "user", "database", "prepared_statement_cache_size"):
            return None
        if name in _OWNED or name not in _ARGUMENTS:
            return f"remove {name!r} from it: asyncpg.connect() has no text argument of that name"
        return self._value_remedy(name, value)

    def argument_remedy(self, name: str, value: object) -> str | None:
        if name in _OWNED:
            return _OWNED[name]
        if name not in _ARGUMENTS | _OF_SQLALCHEMY:
            return f"remove {name!r}: asyncpg.connect() has no such argument"
        if name == "server_settings":
            if not isinstance(value, collections.abc.Mapping):
                return "use a mapping of PostgreSQL's settings"
            return _OWNED["application_name"] if "application_name" in value else None
        return self._value_remedy(name, value)

    def _value_remedy(self, name: str, value: object) -> str | None:
        if name == "ssl" and not isinstance(value, ssl.SSLContext | bool):
            return None if value in _TLS_LEVELS else f"use one of {', '.join(_TLS_LEVELS)}, or an SSLContext"
        if name == "passfile" and not pathlib.Path(str(value)).is_file():
            return "use the path of a file that exists"
        return None

    def connect_args(
        self,
        given: collections.abc.Mapping[str, typing.Any],
        *,
        application_name: str,
        timeout: float,
        pooled: bool,
    ) -> dict[str, typing.Any]:
        settings = {**given.get("server_settings", {}), "application_name": application_name}
        arguments = {**given, "server_settings": settings, "timeout": timeout}
        if pooled:
            # A statement named on one server connection could be executed on another.
            arguments.update(
                statement_cache_size=0, prepared_statement_cache_size=0, async_creator_fn=self._connect_pooled
            )
        return arguments

    def make_reporting(self, arguments: dict[str, typing.Any]) -> None:
        arguments["connection_class"] = reporting(arguments.get("connection_class") or asyncpg.Connection)

    def watch_opening(self, arguments: dict[str, typing.Any], opening: Opening) -> None:
        arguments["async_creator_fn"] = opening.watched(arguments.get("async_creator_fn", asyncpg.connect))

    def set_up(self, engine: Engine) -> None:
        """Do nothing: the dialect can terminate."""

    def sqlstate(self, error: BaseException) -> str | None:
        state: str | None = getattr(getattr(error, "orig", error), "sqlstate", None)
        return state

    def is_lost(self, error: BaseException) -> bool:
        # After an internal error, the state of the protocol is unknown: the driver has read a server's last message,
        # for instance, on an idle connection.
        cause = error if isinstance(error, self.errors) else error.__cause__
        if isinstance(cause, asyncpg.PostgresConnectionError) and cause.severity_en is None:
            return cause.severity is not None  # from a pooler; the driver itself raises it for closed connections only
        return isinstance(cause, asyncpg.InternalClientError) or getattr(cause, "severity_en", None) in ENDING

    def is_untrusted(self, error: BaseException) -> bool:
        # asyncpg has no type for the second one.
        return isinstance(error, ssl.SSLCertVerificationError) or "rejected SSL upgrade" in str(error)

    def may_hold_a_statement(self, error: BaseException) -> bool:
        # With a severity, the error is the server's, which has ended the statement.
        cause = error.__cause__
        return not (isinstance(cause, asyncpg.PostgresError) and cause.severity is not None)

    def is_stale_plan(self, error: BaseException) -> bool:
        return isinstance(error.__cause__, asyncpg.InvalidCachedStatementError)

    def forget_plans(self, connection: DBAPIConnection) -> None:
        """Do nothing: asyncpg and SQLAlchemy's adapter do so after the error."""

    def is_in_transaction(self, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        # asyncpg has removed the protocol of a terminated connection.
        return not connection.is_closed() and bool(connection.is_in_transaction())

    async def has_failed(self, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        # asyncpg does not report it; a failing query shows it.
        try:
            await connection.execute("SELECT")
        except self.errors:
            return True
        return False

    async def connect(
        self, url: URL, connect_args: collections.abc.Mapping[str, typing.Any]
    ) -> "asyncpg.Connection[asyncpg.Record]":
        _, of_url = url.get_dialect()().create_connect_args(url)
        arguments = {**of_url, **connect_args}
        connect = arguments.get("async_creator_fn", asyncpg.connect)
        return await connect(**{name: arguments[name] for name in arguments.keys() - _OF_SQLALCHEMY})

    async def _connect_pooled(self, **arguments: typing.Any) -> "asyncpg.Connection[asyncpg.Record]":
        connection = await asyncpg.connect(**arguments)
        self._pooled.add(connection)
        return connection

    async def fetch_row(self, connection: "asyncpg.Connection[asyncpg.Record]", question: str) -> Row:
        if connection in self._pooled and not connection.is_in_transaction():
            async with connection.transaction():
                return typing.cast(Row, await connection.fetchrow(question))
        return typing.cast(Row, await connection.fetchrow(question))

    async def end_statement(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        await connection.execute("SELECT")

    def report(self, connection: "asyncpg.Connection[asyncpg.Record]", to: Report) -> bool:
        if ReportingConnection not in type(connection).__mro__:  # asyncpg's `isinstance` takes any of its connections
            return False
        typing.cast(ReportingConnection, connection).report = to
        return True

    def has_nothing_to_roll_back(self, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:  # noqa: ARG002
        return False  # SQLAlchemy's adapter knows this, and awaits nothing

    def is_closed(self, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        return bool(connection.is_closed())

    def descriptor(self, connection: "asyncpg.Connection[asyncpg.Record]") -> int | None:
        # asyncpg has no public way to its socket; `tests/drivers/test_asyncpg.py` fails when this changes.
        found = connection._transport.get_extra_info("socket")  # noqa: SLF001
        number: int = -1 if found is None else found.fileno()
        return None if number < 0 else number

    def reports_standby(self, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        return getattr(connection.get_settings(), "in_hot_standby", "off") == "on"

    def terminate(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        connection.terminate()

    async def close(self, connection: "asyncpg.Connection[asyncpg.Record]", *, within: float) -> None:
        try:
            await connection.close(timeout=within)
        except self.lost_connection:
            connection.terminate()


driver: typing.Final[Driver] = Asyncpg()

"""asyncpg, and SQLAlchemy's dialect for it."""

import collections.abc
import inspect
import typing

import asyncpg
from sqlalchemy import URL

from modern_di_replicas.drivers.driver import Driver, Row


_PARAMETERS: typing.Final = {
    *inspect.signature(asyncpg.connect).parameters,
    "prepared_statement_cache_size",  # SQLAlchemy's
} - {
    # Numbers and objects, where a URL gives text.
    *("statement_cache_size", "max_cached_statement_lifetime", "max_cacheable_statement_size", "server_settings"),
    *("dsn", "loop", "connection_class", "record_class", "direct_tls"),
    "timeout",  # `connect_timeout` of the settings
}
"""What may stand behind the `?` of a URL."""

_OF_SQLALCHEMY: typing.Final = frozenset(
    {"async_fallback", "async_creator_fn", "prepared_statement_cache_size", "prepared_statement_name_func"}
)
"""Arguments that SQLAlchemy's dialect takes out before it calls the driver's `connect`."""


class Asyncpg:
    """The driver asyncpg."""

    scheme = "postgresql+asyncpg"
    errors = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
    lost_connection = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError)

    def parameter_remedy(self, name: str) -> str | None:
        if name in _PARAMETERS:
            return None
        if name == "sslmode":
            return "write ssl= where it has sslmode=: asyncpg calls it so, and has the same levels"
        return f"take {name!r} out of it: asyncpg.connect() takes no text of that name"

    def pool_arguments(self, *, application_name: str, timeout: float) -> dict[str, typing.Any]:
        return {"server_settings": {"application_name": application_name}, "timeout": timeout}

    def connect_arguments(self, url: URL, *, application_name: str, timeout: float) -> dict[str, typing.Any]:
        _, arguments = url.get_dialect()().create_connect_args(url)
        given = {name: value for name, value in arguments.items() if name not in _OF_SQLALCHEMY}
        return {**given, **self.pool_arguments(application_name=application_name, timeout=timeout)}

    def sqlstate(self, error: BaseException) -> str | None:
        state: str | None = getattr(getattr(error, "orig", error), "sqlstate", None)
        return state

    def is_lost(self, error: BaseException) -> bool:
        # What connecting raises, and fetching from a server-side cursor: SQLAlchemy wraps neither.
        return isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError)

    def may_hold_a_statement(self, error: BaseException) -> bool:
        # With a severity the server said it, and has ended the statement.
        cause = error.__cause__
        return not (isinstance(cause, asyncpg.PostgresError) and cause.severity is not None)

    async def connect(
        self, arguments: collections.abc.Mapping[str, typing.Any]
    ) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(**arguments)

    async def fetch_row(self, connection: "asyncpg.Connection[asyncpg.Record]", question: str) -> Row:
        return typing.cast(Row, await connection.fetchrow(question))

    async def end_statement(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        await connection.execute("SELECT")

    def is_closed(self, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        return bool(connection.is_closed())

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

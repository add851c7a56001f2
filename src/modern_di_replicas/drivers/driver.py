"""The interface of a PostgreSQL driver."""

import collections.abc
import typing

from sqlalchemy import URL, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection

from modern_di_replicas.drivers.opening import Opening


Row = collections.abc.Mapping[str, typing.Any]

Report = collections.abc.Callable[[str | None], None]
"""Takes the text of each statement before it is sent; None for a COPY into a table."""


ENDING: typing.Final = ("FATAL", "PANIC")
"""The severities with which a server ends the connection. After an `ERROR` it lives, whatever its SQLSTATE."""


class Driver(typing.Protocol):
    """One driver. A *connection* here is the driver's own, not SQLAlchemy's adapter."""

    @property
    def scheme(self) -> str:
        """The part of a SQLAlchemy URL before `://`."""

    @property
    def autocommits_behind_poolers(self) -> bool:
        """Whether statements can run in autocommit behind a transaction pooler.

        A statement must reach the server as one message train: otherwise the pooler may send its parts to different
        connections.
        """

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The base classes of the driver's errors."""

    @property
    def lost_connection(self) -> tuple[type[Exception], ...]:
        """The errors of connecting, and of using a connection that is lost or being closed."""

    # Configuration

    def parameter_remedy(self, name: str, value: str | tuple[str, ...]) -> str | None:
        """Return what to do about a parameter in the query of a URL; None when it is usable."""

    def argument_remedy(self, name: str, value: object) -> str | None:
        """Return what to do about an argument of the driver's `connect`; None when it is usable."""

    def connect_args(
        self,
        given: collections.abc.Mapping[str, typing.Any],
        *,
        application_name: str,
        timeout: float,  # of connecting, in seconds
        pooled: bool,
    ) -> dict[str, typing.Any]:
        """Return `connect_args` for `create_async_engine`, from the given ones."""

    def make_reporting(self, arguments: dict[str, typing.Any]) -> None:
        """Change the arguments of the driver's `connect`, so that the connections report; see `report`."""

    def watch_opening(self, arguments: dict[str, typing.Any], opening: Opening) -> None:
        """Change the arguments of SQLAlchemy's `connect`, so that the attempt can be given up."""

    def set_up(self, engine: Engine) -> None:
        """Enable SQLAlchemy's dialect of an engine to terminate connections, if it cannot."""

    # Errors

    def sqlstate(self, error: BaseException) -> str | None:
        """Return the SQLSTATE of an error, SQLAlchemy's or the driver's; None when the server did not give one."""

    def is_lost(self, error: BaseException) -> bool:
        """Return whether an error means that its connection is lost, even if it looks open; see also `is_closed`."""

    def is_untrusted(self, error: BaseException) -> bool:
        """Return whether connecting failed because the certificate was not accepted, or the server offers no TLS."""

    def may_hold_a_statement(self, error: BaseException) -> bool:
        """Return whether the driver prepared a statement and then failed locally, without executing it."""

    def is_stale_plan(self, error: BaseException) -> bool:
        """Return whether a prepared statement failed because the schema has changed, and can be prepared again."""

    def forget_plans(self, connection: DBAPIConnection) -> None:
        """Discard the prepared statements of a connection, given as SQLAlchemy's adapter."""

    # Connections

    def is_in_transaction(self, connection: typing.Any) -> bool:  # noqa: ANN401
        """Return whether a transaction is open on a connection, failed or not."""

    async def has_failed(self, connection: typing.Any) -> bool:  # noqa: ANN401
        """Return whether the open transaction has failed, so that PostgreSQL can only roll it back."""

    async def connect(self, url: URL, connect_args: collections.abc.Mapping[str, typing.Any]) -> typing.Any:  # noqa: ANN401  # the driver's own type
        """Open a connection of the library's own, in autocommit.

        Args:
            url: the server.
            connect_args: the result of the method of that name.

        """

    async def fetch_row(self, connection: typing.Any, question: str) -> Row:  # noqa: ANN401
        """Return the row of a query without parameters; begin no transaction that stays open."""

    async def end_statement(self, connection: typing.Any) -> None:  # noqa: ANN401
        """End a statement that was prepared and not executed, and the locks it holds."""

    def report(self, connection: typing.Any, to: Report) -> bool:  # noqa: ANN401
        """Let a connection report its statements, including SQLAlchemy's; return whether it can.

        Such a connection raises `TransactionRolledBackError` where PostgreSQL answers a COMMIT with ROLLBACK.
        """

    def has_nothing_to_roll_back(self, connection: typing.Any) -> bool:  # noqa: ANN401
        """Return whether a rollback would send nothing, and can be left out: SQLAlchemy would await it."""

    def is_closed(self, connection: typing.Any) -> bool:  # noqa: ANN401
        """Return whether a connection is known to be closed."""

    def descriptor(self, connection: typing.Any) -> int | None:  # noqa: ANN401
        """Return the file descriptor of a connection's socket; None after it was closed."""

    def reports_standby(self, connection: typing.Any) -> bool:  # noqa: ANN401
        """Return whether the server has reported by itself that it is a standby, as PostgreSQL 14 or newer does."""

    def terminate(self, connection: typing.Any) -> None:  # noqa: ANN401
        """Close a connection without contacting its server; a waiting statement fails at once."""

    async def close(self, connection: typing.Any, *, within: float) -> None:  # noqa: ANN401
        """Close a connection; terminate it if its server does not answer within some seconds."""

"""What the library needs of a PostgreSQL driver."""

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
        """Whether a statement may stand outside a transaction behind a transaction pooler.

        It must reach the server as one message train: else the pooler may send its parts to different connections.
        """

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The base classes of what the driver itself raises."""

    @property
    def lost_connection(self) -> tuple[type[Exception], ...]:
        """What connecting raises, and any use of a connection that is gone, or going."""

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
        """Return `connect_args` for `create_async_engine`, made of those that were given."""

    def make_reporting(self, arguments: dict[str, typing.Any]) -> None:
        """Change what the driver's `connect` gets, so that the connections report; see `report`."""

    def watch_opening(self, arguments: dict[str, typing.Any], opening: Opening) -> None:
        """Change what SQLAlchemy's `connect` gets, so that the attempt can be given up."""

    def set_up(self, engine: Engine) -> None:
        """Make SQLAlchemy's dialect of an engine able to terminate connections, if it is not."""

    # Errors

    def sqlstate(self, error: BaseException) -> str | None:
        """Return the SQLSTATE of an error, SQLAlchemy's or the driver's; None when the server did not give one."""

    def is_lost(self, error: BaseException) -> bool:
        """Return whether an error says that its connection is gone, open as it may look; see `is_closed` as well."""

    def is_untrusted(self, error: BaseException) -> bool:
        """Return whether connecting failed because the certificate was not accepted, or the server offers no TLS."""

    def may_hold_a_statement(self, error: BaseException) -> bool:
        """Return whether the driver prepared a statement and then failed on its own side, without executing it."""

    def is_stale_plan(self, error: BaseException) -> bool:
        """Return whether a prepared statement failed because the schema has changed since, and can be prepared anew."""

    def forget_plans(self, connection: DBAPIConnection) -> None:
        """Have the driver prepare anew what it has prepared on a connection, SQLAlchemy's adapter of it here."""

    # Connections

    def is_in_transaction(self, connection: typing.Any) -> bool:  # noqa: ANN401
        """Return whether a transaction is open on a connection, failed or not."""

    async def has_failed(self, connection: typing.Any) -> bool:  # noqa: ANN401
        """Return whether a transaction is open that PostgreSQL will only roll back."""

    async def connect(self, url: URL, connect_args: collections.abc.Mapping[str, typing.Any]) -> typing.Any:  # noqa: ANN401  # the driver's own type
        """Return a connection of our own, in autocommit.

        Args:
            url: the server.
            connect_args: what the method of that name returned.

        """

    async def fetch_row(self, connection: typing.Any, question: str) -> Row:  # noqa: ANN401
        """Return the one row that answers a question without parameters; leave no transaction open that was not."""

    async def end_statement(self, connection: typing.Any) -> None:  # noqa: ANN401
        """End a statement that was prepared and not executed, and the locks it holds."""

    def report(self, connection: typing.Any, to: Report) -> bool:  # noqa: ANN401
        """Have a connection report its statements, SQLAlchemy's among them; return whether it can.

        One that can raises `TransactionRolledBackError` where PostgreSQL answers its COMMIT with ROLLBACK.
        """

    def has_nothing_to_roll_back(self, connection: typing.Any) -> bool:  # noqa: ANN401
        """Return whether a rollback can be left out, because SQLAlchemy would await one that sends nothing."""

    def is_closed(self, connection: typing.Any) -> bool:  # noqa: ANN401
        """Return whether a connection is known to be closed."""

    def descriptor(self, connection: typing.Any) -> int | None:  # noqa: ANN401
        """Return the file descriptor of an open connection's socket; None when it has none any more."""

    def reports_standby(self, connection: typing.Any) -> bool:  # noqa: ANN401
        """Return whether the server has reported, unasked, that it is a standby; PostgreSQL does from 14 on."""

    def terminate(self, connection: typing.Any) -> None:  # noqa: ANN401
        """Close a connection without asking its server; a statement that waits on it fails now."""

    async def close(self, connection: typing.Any, *, within: float) -> None:  # noqa: ANN401
        """Close a connection; one whose server does not answer within so many seconds is terminated."""

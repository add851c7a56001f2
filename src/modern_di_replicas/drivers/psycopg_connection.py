"""A psycopg connection that reports its statements, and raises where a commit was a rollback."""

import collections.abc
import contextlib
import functools
import types
import typing

import psycopg

from modern_di_replicas.drivers.commit import is_commit
from modern_di_replicas.drivers.driver import Report
from modern_di_replicas.errors import TransactionRolledBackError


class ReportingCursor(psycopg.AsyncCursor[typing.Any]):
    """Reports the statements that are sent over psycopg's public methods, SQLAlchemy's among them."""

    def _report(self, query: object) -> None:
        report = getattr(self.connection, "report", None)
        if report is not None:
            report(self._text(query))

    def _text(self, query: object) -> str:
        if isinstance(query, str):
            return query
        return query.decode() if isinstance(query, bytes) else typing.cast(typing.Any, query).as_string(self.connection)

    async def execute(self, query: typing.Any, *args: typing.Any, **options: typing.Any) -> typing.Self:  # noqa: ANN401
        self._report(query)
        await super().execute(query, *args, **options)
        if self.statusmessage == "ROLLBACK" and is_commit(self._text(query)):
            raise TransactionRolledBackError
        return self

    async def executemany(self, query: typing.Any, *args: typing.Any, **options: typing.Any) -> None:  # noqa: ANN401
        self._report(query)
        await super().executemany(query, *args, **options)

    def stream(self, query: typing.Any, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401
        self._report(query)
        return super().stream(query, *args, **options)

    def copy(self, statement: typing.Any, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401
        self._report(statement)
        return super().copy(statement, *args, **options)


class ReportingConnection(psycopg.AsyncConnection[typing.Any]):
    """Its server-side cursors report nothing: they can only read."""

    report: Report | None = None

    async def commit(self) -> None:
        # PostgreSQL answers the COMMIT of a failed transaction with ROLLBACK, which is a success for libpq.
        has_failed = self.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
        await super().commit()
        if has_failed:
            raise TransactionRolledBackError

    async def tpc_prepare(self) -> None:
        # PostgreSQL would answer with ROLLBACK, as above. Not sent, so that `tpc_rollback()` still works.
        if self.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
            raise TransactionRolledBackError
        await super().tpc_prepare()

    async def tpc_commit(self, xid: psycopg.Xid | str | None = None) -> None:
        if self.report is not None:
            self.report("COMMIT PREPARED")
        has_failed = self.info.transaction_status == psycopg.pq.TransactionStatus.INERROR  # as above, if not prepared
        await super().tpc_commit(xid)
        if has_failed:
            raise TransactionRolledBackError

    @contextlib.asynccontextmanager
    async def transaction(
        self, *args: typing.Any, **options: typing.Any
    ) -> collections.abc.AsyncIterator[psycopg.AsyncTransaction]:
        is_outermost = self.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        async with super().transaction(*args, **options) as transaction:
            yield transaction
            # In a failed transaction PostgreSQL refuses to release a savepoint, which raises by itself.
            if is_outermost and self.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
                raise TransactionRolledBackError


@functools.cache
def reporting(cursor_class: type) -> type:
    """Return a reporting subclass of a cursor class, which may be the application's."""
    if cursor_class in ReportingCursor.__mro__:
        return ReportingCursor
    return types.new_class(f"Reporting{cursor_class.__name__}", (ReportingCursor, cursor_class))

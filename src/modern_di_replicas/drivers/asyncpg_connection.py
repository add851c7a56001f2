"""An asyncpg connection that reports its statements, and raises where a commit was a rollback."""

import functools
import types
import typing

import asyncpg

from modern_di_replicas.drivers.commit import is_commit
from modern_di_replicas.drivers.driver import Report
from modern_di_replicas.errors import TransactionRolledBackError


class ReportingConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """Reports the statements that are sent over asyncpg's public methods, SQLAlchemy's among them.

    SQLAlchemy sees neither direct use of the driver's connection, nor the status of a COMMIT.
    """

    report: Report | None = None

    def _report(self, query: str | None) -> None:
        if self.report is not None:
            self.report(query)

    async def execute(self, query: str, *args: typing.Any, timeout: float | None = None) -> str:  # noqa: ASYNC109  # asyncpg's signature
        self._report(query)
        status: str = await super().execute(query, *args, timeout=timeout)
        if status == "ROLLBACK" and is_commit(query):
            raise TransactionRolledBackError
        return status

    async def executemany(self, command: str, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401
        self._report(command)
        return await super().executemany(command, *args, **options)

    async def prepare(self, query: str, **options: typing.Any) -> typing.Any:  # noqa: ANN401
        self._report(query)
        return await super().prepare(query, **options)

    def cursor(self, query: str, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401
        self._report(query)
        return super().cursor(query, *args, **options)

    async def fetch(self, query: str, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401
        self._report(query)
        return await super().fetch(query, *args, **options)

    async def fetchmany(self, query: str, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401
        self._report(query)
        return await super().fetchmany(query, *args, **options)

    async def fetchrow(self, query: str, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401
        self._report(query)
        return await super().fetchrow(query, *args, **options)

    async def fetchval(self, query: str, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401
        self._report(query)
        return await super().fetchval(query, *args, **options)

    async def copy_from_query(self, query: str, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401
        self._report(query)
        return await super().copy_from_query(query, *args, **options)

    async def copy_to_table(self, table_name: str, **options: typing.Any) -> typing.Any:  # noqa: ANN401
        self._report(None)
        return await super().copy_to_table(table_name, **options)

    async def copy_records_to_table(self, table_name: str, **options: typing.Any) -> typing.Any:  # noqa: ANN401
        self._report(None)
        return await super().copy_records_to_table(table_name, **options)


@functools.cache
def reporting(connection_class: type) -> type:
    """Return a reporting subclass of a connection class, which may be the application's."""
    if issubclass(connection_class, ReportingConnection):
        return connection_class
    if connection_class in ReportingConnection.__mro__:
        return ReportingConnection
    return types.new_class(f"Reporting{connection_class.__name__}", (ReportingConnection, connection_class))

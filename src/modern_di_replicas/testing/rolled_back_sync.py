"""`rolled_back` for synchronous applications."""

import collections.abc
import contextlib
import typing

import modern_di
from sqlalchemy import Connection, Engine, NullPool
from sqlalchemy.engine.interfaces import DBAPIConnection

from modern_di_replicas.cluster.engines.either import PerUnitOfWork
from modern_di_replicas.intent import Intent
from modern_di_replicas.sync.engines import PrimaryEngine, ReplicaEngine
from modern_di_replicas.testing.shared_connection import SharedConnection
from modern_di_replicas.testing.shared_engine import ON_THE_ENGINE, dialect_of, name_of, overridden
from modern_di_replicas.testing.turns import Savepoints, ThreadTurns


@contextlib.contextmanager
def rolled_back_sync(container: modern_di.Container, timeout: float) -> collections.abc.Iterator[Connection]:
    """See `rolled_back`."""
    primary = container.resolve(PrimaryEngine)
    with primary.connect() as connection, connection.begin() as transaction:
        with overridden(container, (PrimaryEngine, ReplicaEngine), SharedSyncEngine(connection, timeout=timeout)):
            yield connection
        transaction.rollback()


class SharedSyncEngine(Engine, PerUnitOfWork):
    """See `SharedEngine`."""

    def __init__(self, connection: Connection, *, timeout: float) -> None:
        self._shared = connection
        self._turns = ThreadTurns(timeout)
        self._savepoints = Savepoints()
        dialect = dialect_of(connection)
        super().__init__(self._pool(self, ON_THE_ENGINE, dialect), dialect, connection.engine.url)

    def for_unit_of_work(self, intent: Intent) -> Engine:
        """Return the engine of one unit of work, which waits for its turn."""
        unit, name = object(), name_of(intent)
        return Engine(self._pool(unit, name, self.dialect), self.dialect, self.url, logging_name=name)

    def _pool(self, unit: object, name: str, dialect: typing.Any) -> NullPool:  # noqa: ANN401  # mypy knows no `Dialect` here
        def connect() -> DBAPIConnection:
            self._turns.take(unit, name)
            real = self._shared.connection.dbapi_connection
            return typing.cast(DBAPIConnection, SharedSyncConnection(real, self._turns, self._savepoints))

        return NullPool(connect, dialect=dialect)


class SharedSyncConnection(SharedConnection):
    """See `SharedConnection`; psycopg's synchronous connections have attributes where others have methods."""

    read_only: object = None
    deferrable: object = None
    isolation_level: object = None

    @property
    def autocommit(self) -> bool:
        """Whether statements are committed one by one."""
        return self._commits_itself

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._commits_itself = value

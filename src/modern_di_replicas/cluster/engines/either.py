"""The engines of both halves: an asynchronous engine wraps a synchronous one, in `sync_engine`."""

import abc
import typing

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from modern_di_replicas.cluster.not_picklable import NotPicklable
from modern_di_replicas.intent import Intent


AnyEngine: typing.TypeAlias = AsyncEngine | Engine


class Role(NotPicklable):
    """The base of the library's engines in both halves; it acts on `sync_engine`."""

    sync_engine: Engine
    """The engine that connects."""


class PerUnitOfWork(abc.ABC):
    """A test's replacement for the primary, with one engine for each unit of work."""

    @abc.abstractmethod
    def for_unit_of_work(self, intent: Intent) -> AnyEngine:
        """Return the engine of one unit of work, whatever its intent; one of the same half."""


def sync_of(bind: AnyEngine | AsyncConnection | Connection, **options: typing.Any) -> Engine | Connection:
    """Return the bind of a `Session`: an engine with some execution options, or a connection unchanged."""
    if isinstance(bind, Connection):
        return bind
    if isinstance(bind, AsyncConnection):
        return typing.cast(Connection, bind.sync_connection)
    engine: Engine = getattr(bind, "sync_engine", typing.cast(Engine, bind))
    return engine.execution_options(**options) if options else engine

"""The engines of both halves: asynchronous ones stand in front of a synchronous one, synchronous ones are it."""

import abc
import typing

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from modern_di_replicas.cluster.of_process import OfProcess
from modern_di_replicas.intent import Intent


AnyEngine: typing.TypeAlias = AsyncEngine | Engine


class Role(OfProcess):
    """What an engine of ours is in both halves; all that it does is done to `sync_engine`."""

    sync_engine: Engine
    """The engine that connects."""


class PerUnitOfWork(abc.ABC):
    """What a test may put in the place of the primary: it gives each unit of work an engine of its own."""

    @abc.abstractmethod
    def for_unit_of_work(self, intent: Intent) -> AnyEngine:
        """Return the engine of one unit of work, whatever its intent; one of the same half."""


def sync_of(bind: AnyEngine | AsyncConnection | Connection, **options: typing.Any) -> Engine | Connection:
    """Return what a `Session` is bound to: an engine with some execution options, or a connection as it is."""
    if isinstance(bind, Connection):
        return bind
    if isinstance(bind, AsyncConnection):
        return typing.cast(Connection, bind.sync_connection)
    engine: Engine = getattr(bind, "sync_engine", typing.cast(Engine, bind))
    return engine.execution_options(**options) if options else engine

"""The engines of both halves: asynchronous ones stand in front of a synchronous one, synchronous ones are it."""

import typing

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


AnyEngine: typing.TypeAlias = AsyncEngine | Engine


class Role:
    """What an engine of ours is in both halves; all that it does is done to `sync_engine`."""

    sync_engine: Engine
    """The engine that connects."""


def sync_of(bind: AnyEngine | AsyncConnection | Connection, **options: typing.Any) -> Engine | Connection:
    """Return what a `Session` is bound to: an engine with some execution options, or a connection as it is."""
    if isinstance(bind, Connection):
        return bind
    if isinstance(bind, AsyncConnection):
        return typing.cast(Connection, bind.sync_connection)
    engine: Engine = getattr(bind, "sync_engine", typing.cast(Engine, bind))
    return engine.execution_options(**options) if options else engine

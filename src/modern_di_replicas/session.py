"""The session of one unit of work."""

import typing

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from modern_di_replicas.cluster.engines import ReplicaEngine
from modern_di_replicas.intent import NOTHING_DECLARED, Intent
from modern_di_replicas.routing.decision import Decision


class RoutedSession(AsyncSession):
    """The `AsyncSession` that is injected: bound to the engine its unit of work chose, to its end.

    Args:
        engine: the engine that was chosen; in a test, a connection.
        intent: what the unit of work declared.
        **options: those of `AsyncSession`.

    """

    def __init__(
        self, engine: AsyncEngine | AsyncConnection, *, intent: Intent = NOTHING_DECLARED, **options: typing.Any
    ) -> None:
        super().__init__(engine, **options)
        server = engine.sync_engine.logging_name if isinstance(engine, ReplicaEngine) else None
        self.decision = Decision(server=server or "primary", reason=intent.reason)
        """Where this unit of work runs, and why."""

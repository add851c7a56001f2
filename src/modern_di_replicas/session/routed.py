"""The session that is injected."""

import dataclasses
import types
import typing

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from modern_di_replicas.cluster.engines.catch_up import CatchUpEngine
from modern_di_replicas.cluster.engines.one_replica import OneReplicaEngine
from modern_di_replicas.cluster.engines.primary import PrimaryEngine
from modern_di_replicas.cluster.engines.replica import ReplicaEngine
from modern_di_replicas.intent import NOTHING_DECLARED, Intent
from modern_di_replicas.observability.request import note_decision
from modern_di_replicas.routing.decision import Cause, Decision, on_primary
from modern_di_replicas.session.get_by_key import GetByKeySession
from modern_di_replicas.session.replica import ReplicaSession
from modern_di_replicas.session.shadow import report_writes


class RoutedSession(AsyncSession):
    """The `AsyncSession` that is injected: its unit of work stays on one server, or moves to the primary for good.

    On a replica, statements run in autocommit (see `ReplicationSettings.read_isolation`). A write that can be
    foreseen moves to the primary before it is sent; what a replica refuses, cancels or loses is run again there.

    Args:
        engine: the engine that was chosen; in a test, a connection.
        primary: where a unit of work on a replica escalates to; default: the primary of the replica's settings.
        intent: what the unit of work declared.
        **options: those of `AsyncSession`.

    """

    sync_session_class = GetByKeySession

    def __init__(
        self,
        engine: AsyncEngine | AsyncConnection,
        *,
        primary: AsyncEngine | AsyncConnection | None = None,
        intent: Intent = NOTHING_DECLARED,
        **options: typing.Any,
    ) -> None:
        self._intent = intent
        chosen, catch_up = engine, None
        if isinstance(engine, ReplicaEngine):
            chosen = engine.choose_for(intent)
        decision: Decision | None = getattr(chosen, "decision", None)
        if decision is None or (decision.cause is Cause.WRITE and not intent.is_write):
            decision = on_primary(Cause.CHOSEN, "" if intent.is_write else "an engine chosen by the application")
        self._decision = decision
        if isinstance(chosen, CatchUpEngine):
            chosen, catch_up = chosen.candidate, chosen
        if isinstance(chosen, OneReplicaEngine):
            options.setdefault("sync_session_class", ReplicaSession)
            options["primary"] = _sync(primary or chosen.policy.primary, chosen.options)
            options.update(replica=chosen, intent=intent, catch_up=catch_up)
        super().__init__(chosen, **options)
        note_decision(self.decision)
        if decision.cause is Cause.SHADOW and isinstance(chosen, PrimaryEngine) and chosen.hooks is not None:
            report_writes(self.sync_session, chosen.hooks, endpoint=intent.endpoint)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        if not self.close_at_once():
            await super().__aexit__(kind, error, traceback)

    def close_at_once(self) -> bool:
        """Close the session if nothing has to be awaited for it; return whether that was so.

        Then there is nothing that a cancellation could interrupt, and no need of a task that is shielded from it.
        """
        session = self.sync_session
        at_once = (
            isinstance(session, ReplicaSession) and session.ends_at_once and type(self).close is RoutedSession.close
        )
        if at_once:
            session.close()
        return at_once

    @property
    def decision(self) -> Decision:
        """Where this unit of work runs now, and why."""
        session, declared = self.sync_session, self._intent.reason
        if not isinstance(session, ReplicaSession):
            chosen = self._decision
            return dataclasses.replace(chosen, reason=f"{declared}, {chosen.reason}" if chosen.reason else declared)
        return session.decision


def _sync(bind: AsyncEngine | AsyncConnection, options: dict[str, typing.Any]) -> Engine | Connection:
    if isinstance(bind, AsyncEngine):
        return bind.sync_engine.execution_options(**options) if options else bind.sync_engine
    return typing.cast(Connection, bind.sync_connection)

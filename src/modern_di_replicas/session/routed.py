"""The injected session."""

import dataclasses
import types
import typing

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from modern_di_replicas.cluster.engines.catch_up import CatchUpEngine
from modern_di_replicas.cluster.engines.either import sync_of
from modern_di_replicas.cluster.engines.one_replica import OneReplicaEngine
from modern_di_replicas.cluster.engines.primary import PrimaryEngine
from modern_di_replicas.cluster.engines.replica import ReplicaEngine
from modern_di_replicas.cluster.not_picklable import NotPicklable
from modern_di_replicas.consistency.client import note_session
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.intent import NOTHING_DECLARED, Intent
from modern_di_replicas.observability.request import keeps_decisions, note_decision
from modern_di_replicas.routing.decision import Cause, Decision, on_primary
from modern_di_replicas.session.composed import OwnClass, combined
from modern_di_replicas.session.get_by_key import GetByKeySession
from modern_di_replicas.session.in_flight import InFlightSession
from modern_di_replicas.session.replica import ReplicaSession
from modern_di_replicas.session.shadow import report_writes
from modern_di_replicas.session.taken_names import check_attributes
from modern_di_replicas.session.unit_of_work import UnitOfWork


class RoutedSession(AsyncSession, NotPicklable):
    """The injected `AsyncSession`: its unit of work stays on one server, or moves to the primary permanently.

    On a replica, statements run in autocommit (see `ReplicationSettings.read_isolation`). A write that can be foreseen
    moves to the primary before it is sent; a statement that a replica refuses, cancels or loses is run again there.

    Args:
        engine: the chosen engine; in a test, a connection.
        bind: the same, by the name in `AsyncSession`.
        primary: the target of an escalation; default: the primary of the replica's settings.
        intent: the intent of the unit of work.
        sync_session_class: a subclass of `Session`, which is combined with the routing; default: the attribute of the
            same name.
        **options: options of `AsyncSession`.

    Raises:
        ConfigurationError: an option cannot work here: `twophase`, or a `sync_session_class` that is not a class.

    """

    _opened: "set[RoutedSession] | None" = None
    """The open sessions of its factory, of which it is one until it is closed."""

    def __init__(
        self,
        engine: AsyncEngine | AsyncConnection | None = None,
        *,
        bind: AsyncEngine | AsyncConnection | None = None,
        primary: AsyncEngine | AsyncConnection | None = None,
        intent: Intent = NOTHING_DECLARED,
        sync_session_class: OwnClass | None = None,
        **options: typing.Any,
    ) -> None:
        if engine is None:
            engine = bind
        elif bind is not None:
            raise ConfigurationError(field="bind", value=bind, remedy="pass it once, as `engine` or as `bind`")
        if options.get("twophase"):
            raise ConfigurationError(
                field="twophase", value=True, remedy="a transaction over two servers cannot be escalated nor tracked"
            )
        if isinstance(engine, ReplicaEngine) and not isinstance(engine, OneReplicaEngine):
            engine = engine.choose_for(intent)
        self._intent = intent
        self._made_with = engine, primary, sync_session_class, options
        own = type(self).sync_session_class if sync_session_class is None else sync_session_class
        if isinstance(engine, OneReplicaEngine | CatchUpEngine):
            self._read_from_replica(engine, primary, own, options)
        else:
            self._use(engine, own, options)
        # SQLAlchemy has set it to the combined class; the attribute is the application's argument.
        del self.sync_session_class
        if sync_session_class is not None:
            self.sync_session_class = typing.cast(type[Session], sync_session_class)
        note_session(self.sync_session, declares_write=intent.is_write)
        if keeps_decisions():
            note_decision(self.decision)

    def _read_from_replica(
        self,
        engine: OneReplicaEngine | CatchUpEngine,
        primary: AsyncEngine | AsyncConnection | None,
        own: OwnClass,
        options: dict[str, typing.Any],
    ) -> None:
        catch_up = engine if isinstance(engine, CatchUpEngine) else None
        replica = typing.cast(OneReplicaEngine, engine if catch_up is None else catch_up.candidate)
        super().__init__(replica, sync_session_class=_class_of(own, ReplicaSession), **options)
        if own is not Session:
            check_attributes(self.sync_session)
        on_primary = replica.options
        if isolation := _isolation_of(self._intent):
            on_primary = {**on_primary, **isolation}
        typing.cast(ReplicaSession, self.sync_session).route(
            replica=replica,
            primary=sync_of(primary or replica.policy.primary, **on_primary),
            intent=self._intent,
            catch_up=catch_up,
            options=options,
        )

    def _use(self, chosen: AsyncEngine | AsyncConnection | None, own: OwnClass, options: dict[str, typing.Any]) -> None:
        """Use the primary, or the application's choice."""
        intent, decision = self._intent, getattr(chosen, "decision", None)
        if decision is None or (decision.cause is Cause.WRITE and not intent.is_write):
            decision = on_primary(Cause.CHOSEN, "" if intent.is_write else "an engine chosen by the application")
        self._decision: Decision = decision
        if isinstance(chosen, AsyncEngine) and (isolation := _isolation_of(intent)):
            chosen = chosen.execution_options(**isolation)
        super().__init__(chosen, sync_session_class=_class_of(own, GetByKeySession), **options)
        if own is not Session:
            check_attributes(self.sync_session)
        if decision.cause is Cause.SHADOW and isinstance(chosen, PrimaryEngine) and chosen.hooks is not None:
            report_writes(self.sync_session, chosen.hooks, endpoint=intent.endpoint)

    def another(self, **options: typing.Any) -> typing.Self:
        """Return a session with the same arguments, on the same engine.

        Args:
            **options: arguments that differ.

        """
        engine, primary, own, given = self._made_with
        made_with = {"engine": engine, "primary": primary, "intent": self._intent, "sync_session_class": own, **given}
        return type(self)(**{**made_with, **options})

    def join_unit(self, unit: UnitOfWork, opened: "set[RoutedSession] | None" = None) -> None:
        """Share a unit of work with other sessions.

        Args:
            unit: the shared state.
            opened: the open sessions, of which it is one until it is closed.

        """
        if isinstance(self.sync_session, ReplicaSession):
            self.sync_session.join_unit(unit)
        if opened is not None:
            opened.add(self)
            self._opened = opened

    async def close(self) -> None:
        """Close the session, after its operations in other tasks; see `AsyncSession.close`."""
        await self._idle()
        await super().close()
        self._closed()

    def _closed(self) -> None:
        if self._opened is not None:
            self._opened.discard(self)

    async def reset(self) -> None:
        """Close the session so that it can be used again; see `AsyncSession.reset` and `close`."""
        await self._idle()
        await super().reset()

    async def _idle(self) -> None:
        await typing.cast(InFlightSession, self.sync_session).idle()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        if not self.close_at_once():
            await super().__aexit__(kind, error, traceback)

    def close_at_once(self) -> bool:
        """Close the session if nothing has to be awaited; return whether it is closed.

        Then a cancellation cannot interrupt it, and no shielded task is needed.
        """
        session = self.sync_session
        has_nothing_to_end = (
            session.ends_at_once if isinstance(session, ReplicaSession) else not session.in_transaction()
        )
        at_once = has_nothing_to_end and type(self).close is RoutedSession.close
        if at_once:
            session.close()
            self._closed()
        return at_once

    @property
    def decision(self) -> Decision:
        """Where this unit of work runs now, and why."""
        session, declared = self.sync_session, self._intent.reason
        if not isinstance(session, ReplicaSession):
            chosen = self._decision
            return dataclasses.replace(chosen, reason=f"{declared}, {chosen.reason}" if chosen.reason else declared)
        return session.decision


def _class_of(own: OwnClass, ours: type[Session]) -> type[Session]:
    # SQLAlchemy's annotation includes callables.
    return ours if own is Session else typing.cast(type[Session], combined(own, ours))


def _isolation_of(intent: Intent) -> dict[str, typing.Any]:
    """Return the execution options for the primary, where autocommit is not used: writes belong together."""
    return {"isolation_level": intent.isolation} if intent.isolation not in (None, "AUTOCOMMIT") else {}

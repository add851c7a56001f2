"""The injected session."""

import collections.abc
import dataclasses
import typing

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from modern_di_replicas.cluster.engines.catch_up import CatchUpRole
from modern_di_replicas.cluster.engines.either import sync_of
from modern_di_replicas.cluster.engines.one_replica import OneReplicaRole
from modern_di_replicas.cluster.engines.primary import PrimaryRole
from modern_di_replicas.cluster.engines.replica import ReplicaRole
from modern_di_replicas.consistency.client import note_session
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.intent import NOTHING_DECLARED, Intent
from modern_di_replicas.observability.request import keeps_decisions, note_decision
from modern_di_replicas.routing.decision import Cause, Decision, on_primary
from modern_di_replicas.session.binds import BoundSession
from modern_di_replicas.session.replica import ReplicaSession
from modern_di_replicas.session.shadow import report_writes
from modern_di_replicas.session.taken_names import check_class
from modern_di_replicas.session.unit_of_work import UnitOfWork


_NOTES: typing.Final = "modern_di_replicas_notes"


class _RoutingSession(ReplicaSession):
    """The base of the session, on a replica or ordinary, for its construction."""

    _is_routed: bool = False
    """Whether it began on a replica."""

    def get_bind(self, mapper: typing.Any = None, **options: typing.Any) -> Engine | Connection:  # noqa: ANN401
        if self._is_routed:
            return super().get_bind(mapper, **options)
        return super(BoundSession, self).get_bind(mapper, **options)


if typing.TYPE_CHECKING:

    class _Routing(Session):
        """The same with SQLAlchemy's types, for its users; the library's own signatures are untyped."""

        escalation: Decision | None
        _is_routed: bool
        _intent: Intent
        _reading: dict[Engine, Connection]

        @property
        def decision(self) -> Decision: ...
        def route(self, **given: typing.Any) -> None: ...
        def join_unit(self, unit: UnitOfWork) -> None: ...
        def note_bind(self, found: Engine | Connection) -> None: ...
else:
    _Routing = _RoutingSession


class RoutedSession(_Routing):
    """The injected `Session`: its unit of work stays on one server, or moves to the primary permanently.

    On a replica, statements run in autocommit (see `ReplicationSettings.read_isolation`). A write that can be foreseen
    moves to the primary before it is sent; a statement that a replica refuses, cancels or loses is run again there.

    A session class of the application is combined with it as `class S(RoutedSession, Own)`.

    Args:
        engine: the chosen engine; in a test, a connection.
        bind: the same, by the name in `Session`.
        primary: the target of an escalation; default: the primary of the replica's settings.
        intent: the intent of the unit of work.
        **options: options of `Session`.

    Raises:
        ConfigurationError: an option cannot work here: `twophase`.

    """

    _opened: "set[RoutedSession] | None" = None
    """The open sessions of its factory, of which it is one until it is closed."""

    def __init_subclass__(cls, **options: typing.Any) -> None:
        """Put the session classes of the application before the library's, which become their `super()`."""
        super().__init_subclass__(**options)
        check_class(cls)
        ours = RoutedSession.__mro__  # `Session` is among them: it stays the last
        own = [base for base in cls.__bases__ if issubclass(base, Session) and base not in ours]
        own = [base for base in own if not issubclass(base, RoutedSession)]
        if own:
            # In the order of `class S(RoutedSession, Own)`, calls of `super()` in a method of `Own` would not be
            # routed: SQLModel's `exec()`, for instance. The asynchronous half has the same order.
            cls.__bases__ = (*own, *(base for base in cls.__bases__ if base not in own))
        if cls.get_bind is not RoutedSession.get_bind and not hasattr(cls.get_bind, _NOTES):
            cls.get_bind = _noting(cls.get_bind)  # type: ignore[method-assign]  # it is the application's

    def __init__(
        self,
        engine: Engine | Connection | None = None,
        *,
        bind: Engine | Connection | None = None,
        primary: Engine | Connection | None = None,
        intent: Intent = NOTHING_DECLARED,
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
        if isinstance(engine, ReplicaRole) and not isinstance(engine, OneReplicaRole):
            engine = engine.choose_for(intent)
        self._intent = intent
        self._made_with = engine, primary, options
        if isinstance(engine, OneReplicaRole | CatchUpRole):
            self._read_from_replica(engine, primary, options)
        else:
            self._use(engine, options)
        note_session(self, declares_write=intent.is_write)
        if keeps_decisions():
            note_decision(self.decision)

    def _read_from_replica(
        self, engine: OneReplicaRole | CatchUpRole, primary: Engine | Connection | None, options: dict[str, typing.Any]
    ) -> None:
        catch_up = engine if isinstance(engine, CatchUpRole) else None
        replica = typing.cast(OneReplicaRole, engine if catch_up is None else catch_up.candidate)
        self._is_routed = True
        super().__init__(replica.sync_engine, **options)
        self.route(
            replica=replica,
            primary=sync_of(primary or replica.policy.primary, **{**replica.options, **_isolation_of(self._intent)}),
            intent=self._intent,
            catch_up=catch_up,
            options=options,
        )

    def _use(self, chosen: Engine | Connection | None, options: dict[str, typing.Any]) -> None:
        """Use the primary, or the application's choice, as an ordinary session."""
        intent, decision = self._intent, getattr(chosen, "decision", None)
        if decision is None or (decision.cause is Cause.WRITE and not intent.is_write):
            decision = on_primary(Cause.CHOSEN, "" if intent.is_write else "an engine chosen by the application")
        self._decision: Decision = decision
        self.escalation = decision
        self._reading = {}
        if isinstance(chosen, Engine) and (isolation := _isolation_of(intent)):
            chosen = chosen.execution_options(**isolation)
        super().__init__(chosen, **options)
        if decision.cause is Cause.SHADOW and isinstance(chosen, PrimaryRole) and chosen.hooks is not None:
            report_writes(self, chosen.hooks, endpoint=intent.endpoint)

    def another(self, **options: typing.Any) -> typing.Self:
        """Return a session with the same arguments, on the same engine.

        Args:
            **options: arguments that differ.

        """
        engine, primary, given = self._made_with
        return type(self)(**{"engine": engine, "primary": primary, "intent": self._intent, **given, **options})

    def join_unit(self, unit: UnitOfWork, opened: "set[RoutedSession] | None" = None) -> None:
        """Share a unit of work with other sessions.

        Args:
            unit: the shared state.
            opened: the open sessions, of which it is one until it is closed.

        """
        if self._is_routed:
            super().join_unit(unit)
        if opened is not None:
            opened.add(self)
            self._opened = opened

    def close(self) -> None:
        """Close the session; see `Session.close`."""
        super().close()
        if self._opened is not None:
            self._opened.discard(self)

    @property
    def decision(self) -> Decision:
        """Where this unit of work runs now, and why."""
        if self._is_routed:
            return super().decision
        chosen, declared = self._decision, self._intent.reason
        return dataclasses.replace(chosen, reason=f"{declared}, {chosen.reason}" if chosen.reason else declared)


def _noting(own: collections.abc.Callable[..., typing.Any]) -> collections.abc.Callable[..., typing.Any]:
    """Pass the result of the application's `get_bind()` to the routing."""

    def get_bind(self: RoutedSession, *args: typing.Any, **options: typing.Any) -> Engine | Connection:
        found: Engine | Connection = own(self, *args, **options)
        if self._is_routed:
            self.note_bind(found)
        return found

    setattr(get_bind, _NOTES, True)
    return get_bind


def _isolation_of(intent: Intent) -> dict[str, typing.Any]:
    """Return the execution options for the primary, where autocommit is not used: writes belong together."""
    return {"isolation_level": intent.isolation} if intent.isolation not in (None, "AUTOCOMMIT") else {}

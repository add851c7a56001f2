"""The providers of a synchronous application, from the settings to the session of a unit of work."""

import typing

from modern_di import Group, Scope, providers
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from modern_di_replicas.cluster.engines.choose import choose
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.intent import NOTHING_DECLARED, Intent
from modern_di_replicas.settings import ReplicationSettings
from modern_di_replicas.sync.engines import PrimaryEngine, ReplicaEngine, create_primary_engine, create_replica_engine
from modern_di_replicas.sync.factory import SessionFactory
from modern_di_replicas.sync.session import RoutedSession
from modern_di_replicas.tokens.validation import Tokens


def choose_engine(intent: Intent, primary: PrimaryEngine, replica: ReplicaEngine) -> Engine:
    """Return the engine a unit of work uses: the primary for a write, one replica for a read.

    Args:
        intent: the intent of the unit of work.
        primary: the engine of the primary.
        replica: the engine of all replicas.

    Raises:
        UnknownGroupError: the intent names a group that no replica declares.
        NoReplicaAvailable: no replica can serve the read, and the settings say `primary_reads=False`.

    """
    return typing.cast(Engine, choose(intent, primary, replica))


def create_session(
    engine: Engine,
    primary: PrimaryEngine,
    intent: Intent,
    *,
    session_class: type[RoutedSession] = RoutedSession,
    **options: typing.Any,
) -> Session:
    """Return the session of a unit of work on the engine that was chosen for it.

    Objects expire at a commit, as by default in SQLAlchemy, and are reloaded when they are used.

    Args:
        engine: the chosen engine.
        primary: the target of an escalation.
        intent: the intent of the unit of work.
        session_class: `RoutedSession`, or a subclass of it; one of `Session` as `class S(RoutedSession, Own)`.
        **options: those of `Session`, such as `autoflush=False`.

    Raises:
        ConfigurationError: `session_class` is not a subclass of `RoutedSession`, or an option cannot work.

    """
    if session_class is not RoutedSession and not issubclass(session_class, RoutedSession):
        raise ConfigurationError(
            field="session_class",
            value=session_class,
            remedy=f"combine it: class Session(RoutedSession, {getattr(session_class, '__name__', session_class)})",
        )
    return session_class(engine, primary=primary, intent=intent, **options)


def close_session(session: Session) -> None:
    """Return the session's connections."""
    session.close()


def close_sessions(sessions: SessionFactory) -> None:
    """Close the further sessions of a unit of work that are still open."""
    sessions.close()


def create_tokens(settings: ReplicationSettings, replica: ReplicaEngine) -> Tokens:
    """Return the validator of the tokens of an application's clients."""
    return Tokens(settings, replica.topology if isinstance(replica, ReplicaEngine) else None)


def dispose_engine(engine: Engine) -> None:
    """Close the pooled connections of an engine."""
    engine.dispose()


class Dependencies(Group):
    """The providers for scripts, jobs and synchronous applications without a framework.

    The intent comes from `build_child_container(context={Intent: Intent.read()})`; without one, a unit of work
    uses the primary. Everything is wired by type, so a subclass replaces a provider by redefining its attribute.
    """

    settings = providers.ContextProvider(ReplicationSettings, scope=Scope.APP)
    primary = providers.Factory(
        create_primary_engine, scope=Scope.APP, cache=providers.CacheSettings(finalizer=dispose_engine)
    )
    replica = providers.Factory(
        create_replica_engine, scope=Scope.APP, cache=providers.CacheSettings(finalizer=dispose_engine)
    )
    tokens = providers.Factory(create_tokens, scope=Scope.APP, cache=True)
    intent: providers.AbstractProvider[Intent] = providers.ContextProvider(
        Intent, scope=Scope.REQUEST, default=NOTHING_DECLARED
    )
    engine = providers.Factory(choose_engine, scope=Scope.REQUEST, cache=True)
    session: providers.AbstractProvider[typing.Any] = providers.Factory(
        create_session, scope=Scope.REQUEST, cache=providers.CacheSettings(finalizer=close_session)
    )
    routed_session: providers.AbstractProvider[typing.Any] | None = providers.Alias(Session, bound_type=RoutedSession)
    sessions = providers.Factory(
        SessionFactory, scope=Scope.REQUEST, cache=providers.CacheSettings(finalizer=close_sessions)
    )

    def __init_subclass__(cls, **options: typing.Any) -> None:
        """Resolve the subclass's `session` as `Session` and as `RoutedSession`, whichever it is bound to."""
        super().__init_subclass__(**options)
        bound = {
            provider.bound_type for name, provider in cls.get_named_providers().items() if name != "routed_session"
        }
        if RoutedSession in bound:
            bridges = cls.session.bound_type is RoutedSession and Session not in bound
            cls.routed_session = providers.Alias(RoutedSession, bound_type=Session) if bridges else None
        elif Session not in bound:
            cls.routed_session = None

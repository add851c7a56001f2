"""The providers, from the settings to the session of a unit of work."""

import collections.abc
import contextlib
import typing

import modern_di.exceptions
from modern_di import Container, Group, Scope, providers
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from modern_di_replicas.asgi.middleware import TokenState
from modern_di_replicas.cluster.engines.choose import choose
from modern_di_replicas.cluster.engines.create import create_primary_engine, create_replica_engine
from modern_di_replicas.cluster.engines.primary import PrimaryEngine
from modern_di_replicas.cluster.engines.replica import ReplicaEngine
from modern_di_replicas.cluster.monitoring.monitor import Monitor
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.intent import NOTHING_DECLARED, Intent
from modern_di_replicas.session.factory import SessionFactory
from modern_di_replicas.session.routed import RoutedSession
from modern_di_replicas.settings import ReplicationSettings
from modern_di_replicas.tokens.validation import Tokens


def choose_engine(intent: Intent, primary: PrimaryEngine, replica: ReplicaEngine) -> AsyncEngine:
    """Return the engine a unit of work uses: the primary for a write, one replica for a read.

    Args:
        intent: the intent of the unit of work.
        primary: the engine of the primary.
        replica: the engine of all replicas.

    Raises:
        UnknownGroupError: the intent names a group that no replica declares.
        NoReplicaAvailable: no replica can serve the read, and the settings say `primary_reads=False`.

    """
    return typing.cast(AsyncEngine, choose(intent, primary, replica))


def create_session(
    engine: AsyncEngine,
    primary: PrimaryEngine,
    intent: Intent,
    *,
    session_class: type[RoutedSession] = RoutedSession,
    **options: typing.Any,
) -> AsyncSession:
    """Return the session of a unit of work on the engine that was chosen for it.

    Objects stay readable after a commit (`expire_on_commit=False`): refreshing them would need I/O that an
    attribute access cannot await.

    Args:
        engine: the chosen engine.
        primary: the target of an escalation.
        intent: the intent of the unit of work.
        session_class: `RoutedSession`, or a subclass of it; one of `AsyncSession` as `class S(RoutedSession, Own)`.
        **options: those of `AsyncSession`, such as `autoflush=False`.

    Raises:
        ConfigurationError: `session_class` is not a subclass of `RoutedSession`, or an option cannot work.

    """
    if session_class is not RoutedSession and not issubclass(session_class, RoutedSession):
        raise ConfigurationError(
            field="session_class",
            value=session_class,
            remedy=f"combine it: class Session(RoutedSession, {getattr(session_class, '__name__', session_class)})",
        )
    return session_class(engine, primary=primary, intent=intent, **{"expire_on_commit": False, **options})


def close_session(session: AsyncSession) -> collections.abc.Awaitable[None] | None:
    """Return the session's connections, also when the request is cancelled meanwhile.

    Returns:
        An awaitable; None if they are returned already, as after reading from a replica, or after `close()`: a
        synchronous command-line tool closes its container without an event loop.

    """
    if isinstance(session, RoutedSession) and session.close_at_once():
        return None
    return session.__aexit__(None, None, None)  # SQLAlchemy shields this from cancellation, and not a plain close()


def close_sessions(sessions: SessionFactory) -> collections.abc.Awaitable[None] | None:
    """Close the further sessions of a unit of work that are still open; return an awaitable if there are any."""
    return sessions.close() if sessions.has_open else None


def create_tokens(settings: ReplicationSettings, replica: ReplicaEngine) -> Tokens:
    """Return the validator of the tokens of an application's clients."""
    return Tokens(settings, replica.topology if isinstance(replica, ReplicaEngine) else None)


async def dispose_engine(engine: AsyncEngine) -> None:
    """Close the pooled connections of an engine."""
    await engine.dispose()


Connection = typing.TypeVar("Connection")


def enclosing_connection(container: Container, connection_type: type[Connection]) -> Connection | None:
    """Return the websocket connection a unit of work belongs to, if any.

    The frameworks' containers of websockets have the scope SESSION; an HTTP request has none around it, and
    wiring by type would fail there.
    """
    session = container.parent_container
    if session is None or session.scope is not Scope.SESSION:
        return None
    try:
        return session.resolve(connection_type)
    except modern_di.exceptions.ContextValueNotSetError:  # the application's own use of the scope
        return None


class Dependencies(Group):
    """The providers for jobs, command-line tools and anything without a framework.

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
    routed_session: providers.AbstractProvider[typing.Any] | None = providers.Alias(
        AsyncSession, bound_type=RoutedSession
    )
    sessions = providers.Factory(
        SessionFactory, scope=Scope.REQUEST, cache=providers.CacheSettings(finalizer=close_sessions)
    )

    def __init_subclass__(cls, **options: typing.Any) -> None:
        """Resolve the subclass's `session` as `AsyncSession` and as `RoutedSession`, whichever it is bound to."""
        super().__init_subclass__(**options)
        bound = {
            provider.bound_type for name, provider in cls.get_named_providers().items() if name != "routed_session"
        }
        if RoutedSession in bound:
            bridges = cls.session.bound_type is RoutedSession and AsyncSession not in bound
            cls.routed_session = providers.Alias(RoutedSession, bound_type=AsyncSession) if bridges else None
        elif AsyncSession not in bound:
            cls.routed_session = None


@contextlib.asynccontextmanager
async def watched(
    container: Container, marked: collections.abc.Iterable[Intent]
) -> collections.abc.AsyncIterator[ReplicaEngine | None]:
    """Monitor the servers of an application while it runs, and yield the engine of the replicas.

    It yields None, and monitors nothing, without replicas, or where a test has replaced them. It starts no second
    monitor if another part of the program runs one.

    Args:
        container: the application's container, opened.
        marked: the intents its endpoints are marked with.

    Raises:
        ConfigurationError: a server refuses the user, the password or the database of its URL.
        UnknownGroupError: a marker names a group that no replica declares.

    """
    replica = container.resolve(ReplicaEngine)
    if not isinstance(replica, ReplicaEngine) or not replica.settings.replicas:
        yield None
        return
    for intent in marked:
        replica.topology.check_group(intent.group)
    if replica.topology.watcher is not None:
        yield replica
        return
    async with Monitor(replica):
        yield replica


@contextlib.asynccontextmanager
async def monitored(
    container: Container, marked: collections.abc.Iterable[Intent], state: TokenState
) -> collections.abc.AsyncIterator[None]:
    """Monitor the servers of an application, and accept the tokens of its clients, while it runs.

    Neither is done where a test has replaced the replicas.

    Args:
        container: the application's container, opened.
        marked: the intents its endpoints are marked with.
        state: the tokens of the application.

    Raises:
        ConfigurationError: a server refuses the user, the password or the database of its URL.
        UnknownGroupError: a marker names a group that no replica declares.

    """
    async with watched(container, marked) as replica:
        if replica is None:
            yield
            return
        state.open(replica.settings, container.resolve(Tokens))
        try:
            yield
        finally:
            state.close()

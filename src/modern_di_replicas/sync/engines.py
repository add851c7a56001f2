"""The engines of synchronous applications: real engines of SQLAlchemy, with the roles of `cluster/`."""

import collections.abc
import typing

import sqlalchemy
from sqlalchemy import Connection, Engine, PoolProxiedConnection, event
from sqlalchemy.engine.base import OptionEngine

from modern_di_replicas.cluster.background import check_threads
from modern_di_replicas.cluster.commits import Writes
from modern_di_replicas.cluster.engines.catch_up import CatchUpRole, OneWithOptions
from modern_di_replicas.cluster.engines.create import Half, create_primary, create_replicas
from modern_di_replicas.cluster.engines.either import Role
from modern_di_replicas.cluster.engines.limited import ThreadedFallbackLimit
from modern_di_replicas.cluster.engines.one_replica import OneReplicaRole
from modern_di_replicas.cluster.engines.primary import PrimaryRole
from modern_di_replicas.cluster.engines.replica import ReplicaRole
from modern_di_replicas.cluster.escalation import EscalationPolicy
from modern_di_replicas.cluster.freshness import FreshRead
from modern_di_replicas.cluster.pools.threaded import ThreadedFencedPool, ThreadedPool
from modern_di_replicas.cluster.server import Server
from modern_di_replicas.cluster.topology import Topology
from modern_di_replicas.consistency.levels import Consistency
from modern_di_replicas.consistency.token import ConsistencyToken
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.intent import Intent
from modern_di_replicas.observability.emission import Hooks
from modern_di_replicas.routing.decision import Decision
from modern_di_replicas.settings import ReadIsolation, ReplicationSettings
from modern_di_replicas.sync.processes import forget_in_children


SCHEME: typing.Final = "postgresql+psycopg"
"""The only supported driver of synchronous applications."""

Ours = typing.TypeVar("Ours", bound=Engine)


class _SyncEngine(Engine, Role):
    """An engine that is its own `sync_engine`.

    `Engine` is the first base of all these classes, so that the class of an engine can be changed to them.
    """

    @property
    def sync_engine(self) -> Engine:  # type: ignore[override]  # an attribute of `AsyncEngine` in the other half
        """The engine itself."""
        return self


class _Optioned(OptionEngine):
    """The result of `execution_options()` of the library's engines: the same pool, dialect and role."""

    def __init__(self, engine: Engine, options: collections.abc.Mapping[str, typing.Any], role: object) -> None:
        super().__init__(engine, options)
        self._engine = engine
        # The classes of the roles annotate all their attributes.
        for kind in type(self).__mro__:
            if kind is not Role and issubclass(kind, Role):
                vars(self).update({name: vars(role)[name] for name in kind.__annotations__ if name in vars(role)})

    def raw_connection(self) -> PoolProxiedConnection:
        """Return a connection; see `Engine.raw_connection`."""
        return self._engine.raw_connection()  # which may be limited


class PrimaryEngine(_SyncEngine, PrimaryRole):
    """The engine of the current primary: `follow` moves it to another server.

    `create_primary_engine` makes it.
    """

    def with_decision(self, decision: Decision, sync_engine: Engine | None = None) -> typing.Self:
        """Return the same engine, which carries why it was chosen; see `PrimaryRole.with_decision`."""
        chosen = _OptionedPrimaryEngine(self if sync_engine is None else sync_engine, {}, self)
        chosen.decision = decision
        return typing.cast(typing.Self, chosen)

    def forget_process(self) -> None:
        """Leave the connections to the parent of this forked process."""
        self._connections.forget()
        self._fence.forget_waiting()
        self._outage.forget_waiting()
        self.wait_for_changes(0.0)
        self.declare_up()

    def execution_options(self, **options: typing.Any) -> typing.Self:  # type: ignore[override]  # SQLAlchemy says OptionEngine, which it is
        """Return the same engine with other execution options; see `Engine.execution_options`."""
        return typing.cast(typing.Self, _OptionedPrimaryEngine(self, options, self))


class _OptionedPrimaryEngine(PrimaryEngine, _Optioned):
    pass


class CatchUpEngine(CatchUpRole, OptionEngine):
    """See `CatchUpRole`."""

    def __init__(
        self,
        primary: Engine,
        *,
        candidate: Server,
        read: FreshRead,
        with_options: OneWithOptions | None = None,
    ) -> None:
        super().__init__(primary, {})
        self.sync_engine = primary
        self._serve(candidate=candidate, read=read, with_options=with_options)

    def connect(self) -> Connection:
        """Return a connection to the primary; see `Engine.connect`.

        Raises:
            NoReplicaAvailable: the settings say `primary_reads=False`.

        """
        self._check_connect()
        return self.sync_engine.connect()

    def raw_connection(self) -> PoolProxiedConnection:
        """Return a connection to the primary; see `Engine.raw_connection`."""
        self._check_connect()
        return self.sync_engine.raw_connection()


class ReplicaEngine(_SyncEngine, ReplicaRole):
    """The engine of all replicas; see `ReplicaRole`. `create_replica_engine` makes it."""

    catch_up_engine = CatchUpEngine

    if typing.TYPE_CHECKING:  # engines of either half there, of this half here

        @property
        def engines(self) -> collections.abc.Mapping[str, Engine]: ...
        def choose(
            self,
            group: str | None = None,
            *,
            affinity: str | None = None,
            consistency: Consistency | None = None,
            after: ConsistencyToken | None = None,
        ) -> Engine: ...

    def choose_for(self, intent: Intent) -> Engine:
        """Return the engine for a read that was declared; see `ReplicaRole.choose_for`."""
        self.topology.ensure_watched()
        return typing.cast(Engine, super().choose_for(intent))

    def execution_options(self, **options: typing.Any) -> typing.Self:  # type: ignore[override]  # as above
        """Return the same replicas with other execution options; see `Engine.execution_options`."""
        optioned = _OptionedReplicaEngine(self, options, self)
        optioned._take_options(options, self)  # noqa: SLF001  # of the same class
        return typing.cast(typing.Self, optioned)

    def update_execution_options(self, **options: typing.Any) -> None:
        """Change the execution options of every replica's connections; see `Engine.update_execution_options`."""
        super().update_execution_options(**options)
        if "topology" in vars(self):  # SQLAlchemy calls it while the engine is made
            self._note_options(options)

    def forget_process(self) -> None:
        """Leave the connections to the parent of this forked process, and reset the state of the servers."""
        self.topology.forget_process()
        for server in self.topology.servers:
            typing.cast(OneReplicaEngine, server.engine).connections.forget()


class _OptionedReplicaEngine(ReplicaEngine, _Optioned):
    pass


class OneReplicaEngine(ReplicaEngine, OneReplicaRole):
    """See `OneReplicaRole`."""

    def execution_options(self, **options: typing.Any) -> typing.Self:  # type: ignore[override]  # as above
        """Return the same replica with other execution options; see `Engine.execution_options`."""
        optioned = _OptionedOneReplicaEngine(self, options, self)
        optioned.take_options(options)
        return typing.cast(typing.Self, optioned)

    def update_execution_options(self, **options: typing.Any) -> None:
        """Change the execution options of its connections; see `Engine.update_execution_options`."""
        Engine.update_execution_options(self, **options)
        if "options" in vars(self):  # SQLAlchemy calls it while the engine is made
            self.take_options(options)

    def dispose(self, close: bool = True) -> None:  # noqa: FBT001, FBT002  # the signature of Engine
        """Close the pooled connections; see `Engine.dispose`."""
        Engine.dispose(self, close)


class _OptionedOneReplicaEngine(OneReplicaEngine, _Optioned):
    pass


def _convert(engine: Engine, kind: type[Ours]) -> Ours:
    """Change an engine that SQLAlchemy has created to one of the library's classes.

    It stays the same object: instrumentation and plugins have added listeners to it, or refer to it. SQLAlchemy has no
    public way to set the class of an engine; `tests/sync/test_engines.py` fails if this stops working.
    """
    engine.__class__ = kind
    return typing.cast(Ours, engine)


def _primary(
    engine: Engine,
    *,
    writes: Writes | None,
    connect_args: collections.abc.Mapping[str, typing.Any],
    hooks: Hooks | None,
) -> PrimaryEngine:
    primary = _convert(engine, PrimaryEngine)
    primary._serve(writes=writes, connect_args=connect_args, hooks=hooks)  # noqa: SLF001  # this is its constructor
    forget_in_children(primary)
    return primary


def _replicas(
    engine: Engine, *, settings: ReplicationSettings, policy: EscalationPolicy, topology: Topology
) -> ReplicaEngine:
    replicas = _convert(engine, ReplicaEngine)
    replicas._serve(settings=settings, policy=policy, topology=topology)  # noqa: SLF001
    forget_in_children(replicas)
    return replicas


def _one_replica(
    engine: Engine,
    *,
    isolation: ReadIsolation,
    autocommits: bool,
    **of_all: typing.Any,
) -> OneReplicaEngine:
    one = _convert(engine, OneReplicaEngine)
    one._serve(**of_all)  # noqa: SLF001
    one._serve_one(isolation=isolation, autocommits=autocommits)  # noqa: SLF001
    return one


def _create(url: str, **options: typing.Any) -> Engine:
    check_threads()
    # Looked up at each call: instrumentation replaces `create_engine` after this module was imported.
    engine = sqlalchemy.create_engine(url, **options)
    # A server may load the application first, and monkey-patch the threads in its workers.
    event.listen(engine, "do_connect", _check_threads)
    return engine


def _check_threads(*_: object) -> None:
    check_threads()


SYNCHRONOUS: typing.Final = Half(
    create_engine=_create,
    primary_pool=ThreadedFencedPool,
    replica_pool=ThreadedPool,
    primary=_primary,
    replicas=_replicas,
    one_replica=_one_replica,
    limit=ThreadedFallbackLimit,
)


def create_primary_engine(settings: ReplicationSettings) -> PrimaryEngine:
    """Return the engine of the primary; nothing is connected yet.

    Raises:
        ConfigurationError: the URLs name another driver than psycopg, or gevent or eventlet has monkey-patched the
            threads.

    """
    if settings.driver.scheme != SCHEME:
        raise ConfigurationError(
            field="primary",
            value=settings.driver.scheme,
            remedy=f"write {SCHEME}:// in the URLs: a synchronous application needs psycopg",
        )
    return create_primary(SYNCHRONOUS, settings)


def create_replica_engine(settings: ReplicationSettings, primary: PrimaryEngine) -> ReplicaEngine:
    """Return the engine that stands for all replicas; nothing is connected yet.

    Args:
        settings: the replicas and their pools.
        primary: serves the reads when there are no replicas.

    """
    return create_replicas(SYNCHRONOUS, settings, primary)

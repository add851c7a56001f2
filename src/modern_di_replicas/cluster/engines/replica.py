"""The engine of all replicas, which chooses one of them for each unit of work."""

import collections.abc
import copy
import functools
import typing

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from modern_di_replicas.cluster.engines.catch_up import CatchUpEngine, CatchUpRole, OneWithOptions, without_options
from modern_di_replicas.cluster.engines.either import AnyEngine, Role, sync_of
from modern_di_replicas.cluster.escalation import EscalationPolicy
from modern_di_replicas.cluster.freshness import FreshRead, catch_up
from modern_di_replicas.cluster.listeners import forward_listeners_of_options
from modern_di_replicas.cluster.topology import Topology
from modern_di_replicas.consistency.client import client_of_request
from modern_di_replicas.consistency.levels import SESSION, STRONG, Bounded, Consistency
from modern_di_replicas.consistency.token import ConsistencyToken
from modern_di_replicas.errors import NoReplicaAvailable
from modern_di_replicas.intent import Intent, is_primary_declared
from modern_di_replicas.observability.events import Decided, Shadowed
from modern_di_replicas.routing.decision import PRIMARY, Cause, decision_of, on_primary
from modern_di_replicas.routing.positions import Freshness
from modern_di_replicas.routing.rollout import Rollout
from modern_di_replicas.routing.snapshot import Snapshot
from modern_di_replicas.settings import ReplicationSettings


class ReplicaRole(Role):
    """The engine of all replicas in both halves.

    Each checkout comes from a serving replica, or from the primary when there is none. `choose()` returns the engine of
    one replica, a `OneReplicaEngine`, so that a unit of work stays on one server.
    """

    settings: ReplicationSettings
    policy: EscalationPolicy
    """What happens when a unit of work leaves its replica."""
    topology: Topology
    """The servers and their state."""
    options: dict[str, typing.Any]
    """The execution options given to it, which a unit of work keeps when it moves to the primary."""
    one_with_options: OneWithOptions
    """Returns the engine of one replica with these options: the same object each time, so that listeners stay."""
    catch_up_engine: typing.ClassVar[typing.Any] = CatchUpEngine
    """The class of this half."""

    def _serve(self, *, settings: ReplicationSettings, policy: EscalationPolicy, topology: Topology) -> None:
        """Complete the set-up of the replicas' engine; called once `sync_engine` is set."""
        self.settings = settings
        self.policy = policy
        self.topology = topology
        self.options = {}
        self.one_with_options = without_options

    @property
    def label(self) -> str:
        """The name of the replica, or a label for all."""
        return self.sync_engine.logging_name or "replicas"

    @property
    def snapshot(self) -> Snapshot | None:
        """The latest snapshot of the monitor; None while none runs."""
        return self.topology.snapshot

    @property
    def engines(self) -> collections.abc.Mapping[str, typing.Any]:
        """The engine of each server that can serve reads, by name: for pool statistics, for instance."""
        return {server.name: self.one_with_options(server.engine) for server in self.topology.servers}

    def choose(
        self,
        group: str | None = None,
        *,
        affinity: str | None = None,
        consistency: Consistency | None = None,
        after: ConsistencyToken | None = None,
    ) -> typing.Any:  # noqa: ANN401  # an engine of the same half
        """Return the engine of one replica for one unit of work, or the primary's when no replica can serve it.

        Args:
            group: the group the replica has to belong to.
            affinity: the same key gets the same replica, as long as that one serves.
            consistency: how fresh the replica has to be; default: that of the settings.
            after: what the replica has to include; with SESSION, what the client of the current request has written
                as well.

        Raises:
            UnknownGroupError: no replica is declared for `group`.
            NoReplicaAvailable: no replica can serve it, and the settings say `primary_reads=False`.

        """
        return self.choose_for(Intent.read(group=group, affinity=affinity, consistency=consistency, after=after))

    def choose_for(self, intent: Intent) -> typing.Any:  # noqa: ANN401
        """Return the engine for a read that was declared; it carries the decision. See `choose`.

        Where no replica is known to be fresh enough, it is a `CatchUpEngine`: the primary's, with which a session asks
        the replicas once more.
        """
        rollout = self.topology.rollout
        chosen = self._choose(intent) if rollout is None else self._choose_in_rollout(intent, rollout)
        if (hooks := self.topology.hooks) is not None and not isinstance(chosen, CatchUpRole):
            hooks.emit(Decided(decision=decision_of(chosen), endpoint=intent.endpoint))
        if self.topology.watcher is None and isinstance(chosen, ReplicaRole):
            self.policy.report_no_monitor()
        if not self.options:
            return chosen
        if isinstance(chosen, ReplicaRole):
            return self.one_with_options(chosen)
        if isinstance(chosen, CatchUpRole):
            return chosen.with_options(self.options, self.one_with_options)
        return chosen.execution_options(**self.options)

    def _choose_in_rollout(self, intent: Intent, rollout: Rollout) -> AnyEngine:
        """Choose while replicas are not rolled out to all reads."""
        self.topology.check_group(intent.group)
        kept = rollout.kept_on_primary(intent.affinity)
        if kept is not None:
            return self.topology.primary_for(*kept)
        if not rollout.shadow:
            return self._choose(intent)
        try:
            decision = decision_of(self._choose(intent))
        except NoReplicaAvailable:
            decision = on_primary(Cause.NO_REPLICA_SERVES, "")
        server = decision.server
        if self.topology.hooks is not None:
            self.topology.hooks.emit(
                Shadowed(
                    server=None if server == PRIMARY else server,
                    stale=decision.cause is Cause.NOT_FRESH,
                    endpoint=intent.endpoint,
                )
            )
        return self.topology.primary_for(Cause.SHADOW, f"shadow mode: it would read from {server}")

    def _choose(self, intent: Intent) -> AnyEngine:
        topology, group = self.topology, intent.group
        level = intent.consistency or self.settings.consistency
        if is_primary_declared():
            topology.check_group(group)
            return topology.primary_for(Cause.USE_PRIMARY, "use_primary()")
        if level is STRONG:
            topology.check_group(group)
            return topology.primary_for(Cause.STRONG, "STRONG")
        client = client_of_request() if level is SESSION else None
        if client is not None and client.position_unknown:
            topology.check_group(group)
            return topology.primary_for(Cause.POSITION_UNKNOWN, "the position of its client's last write is unknown")
        own = None if client is None else client.token
        if intent.after is None and own is None and not isinstance(level, Bounded):
            server = topology.choose_server(intent.group, affinity=intent.affinity)
            if server is not None:
                chosen: AnyEngine = server.engine
                return chosen
            if not intent.wait:
                return topology.without_replica(intent.group)
        return self._choose_fresh(self._fresh_read(intent, level, own))

    def _fresh_read(
        self, intent: Intent, level: Consistency, own: ConsistencyToken | None, **limits: typing.Any
    ) -> FreshRead:
        max_age = level.lag.total_seconds() if isinstance(level, Bounded) else None
        return FreshRead(
            topology=self.topology,
            freshness=Freshness(after=tuple(filter(None, (intent.after, own))), max_age=max_age),
            group=intent.group,
            affinity=intent.affinity,
            wait=self.settings.catch_up_wait if intent.wait is None else intent.wait.total_seconds(),
            has_time=bool(intent.wait),
            endpoint=intent.endpoint,
            **limits,
        )

    async def another(self, intent: Intent, *, without: frozenset[str], has_read: bool) -> typing.Any:  # noqa: ANN401
        """Return the engine of another replica for a read that failed on this one; None when there is none.

        Args:
            intent: the intent of the read.
            without: the names of replicas on which it failed.
            has_read: whether its unit of work has read from this replica: then the other one has to be at least as far,
                to the monitor's knowledge.

        """
        topology, level = self.topology, intent.consistency or self.settings.consistency
        client = client_of_request() if level is SESSION else None
        shown = topology.furthest(self.label) if has_read else 0.0
        if level is STRONG or (client is not None and client.position_unknown) or (has_read and not shown):
            return None  # no replica is known to be far enough
        own = None if client is None else client.token
        read = self._fresh_read(intent, level, own, at_least=shown, without=without)
        server = read.choose_server()
        candidate = topology.choose_server(intent.group, affinity=intent.affinity, without=without)
        if server is None and candidate is not None:
            server = await catch_up(read, first=candidate.name)
        if server is None:
            return None
        return server.engine.execution_options(**self.options) if self.options else server.engine

    async def following(self, intent: Intent, token: ConsistencyToken | None) -> FreshRead | None:
        """Wait until this replica has reached a token, and return the read; None when it has not in time.

        Args:
            intent: the intent of the read.
            token: the position of its client.

        """
        topology = self.topology
        others = frozenset(server.name for server in topology.servers if server.name != self.label)
        read = self._fresh_read(intent, SESSION, token, without=others)
        # A name may lead to several servers, so each connection is asked.
        if topology.leads_to_several(self.label) or read.choose_server() is not None:
            return read
        return None if await catch_up(read, first=self.label) is None else read

    def _choose_fresh(self, read: FreshRead) -> AnyEngine:
        topology = self.topology
        if (server := read.choose_server()) is not None:
            fresh: AnyEngine = server.engine
            return fresh
        candidate = topology.choose_server(read.group, affinity=read.affinity)
        if candidate is None and read.has_time:
            candidate = next(iter(topology.declared(read.group)), None)
        if candidate is None:
            return topology.without_replica(read.group)
        if topology.watcher is None or not isinstance(topology.primary, AsyncEngine | Engine):
            return topology.without_replica(
                read.group, Cause.NOT_FRESH, f"no replica is known to have {read.freshness}"
            )
        primary = topology.limited(typing.cast(Engine, sync_of(topology.primary)), Cause.NOT_FRESH)
        chosen: AnyEngine = self.catch_up_engine(primary, candidate=candidate, read=read)
        return chosen

    def _take_options(self, options: dict[str, typing.Any], of: "ReplicaRole") -> None:
        """Copy another engine of the same replicas, with more execution options."""
        self.options = {**of.options, **options}
        # Two threads that ask for the first time at once may get two engines; listeners reach both.
        self.one_with_options = functools.cache(lambda one: of.one_with_options(one).execution_options(**options))
        forward_listeners_of_options(
            self.sync_engine,
            lambda: [sync_of(engine) for engine in self.engines.values()],  # type: ignore[misc]  # no connection among them
        )

    def _note_options(self, options: dict[str, typing.Any]) -> None:
        self.options = {**self.options, **options}
        for one in self.engines.values():
            one.update_execution_options(**options)


class ReplicaEngine(ReplicaRole, AsyncEngine):
    """The engine of all replicas; see `ReplicaRole`.

    Args:
        sync_engine: its pool hands out the connections of the replicas' pools.
        settings: the servers and how to use them.
        policy: what happens when a unit of work leaves its replica.
        topology: the servers and their state.

    """

    def __init__(
        self, sync_engine: Engine, *, settings: ReplicationSettings, policy: EscalationPolicy, topology: Topology
    ) -> None:
        super().__init__(sync_engine)
        self._serve(settings=settings, policy=policy, topology=topology)

    if typing.TYPE_CHECKING:  # engines of either half there, of this half here

        @property
        def engines(self) -> collections.abc.Mapping[str, AsyncEngine]: ...
        def choose(
            self,
            group: str | None = None,
            *,
            affinity: str | None = None,
            consistency: Consistency | None = None,
            after: ConsistencyToken | None = None,
        ) -> AsyncEngine: ...
        def choose_for(self, intent: Intent) -> AsyncEngine: ...

    def execution_options(self, **options: typing.Any) -> typing.Self:
        """Return the same replicas with other execution options; see `AsyncEngine.execution_options`."""
        optioned = copy.copy(self)
        AsyncEngine.__init__(optioned, self.sync_engine.execution_options(**options))
        optioned._take_options(options, self)  # noqa: SLF001  # of the same class
        return optioned

    def update_execution_options(self, **options: typing.Any) -> None:
        """Change the execution options of every replica's connections; see `AsyncEngine.update_execution_options`."""
        super().update_execution_options(**options)
        self._note_options(options)

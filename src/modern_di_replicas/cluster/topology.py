"""The servers of one application: which of them serves a read, and the primary behind them."""

import collections.abc
import functools
import typing

from sqlalchemy import Engine

from modern_di_replicas.cluster.commits import Writes
from modern_di_replicas.cluster.engines.either import AnyEngine
from modern_di_replicas.cluster.engines.limited import FallbackLimit
from modern_di_replicas.cluster.engines.primary import PrimaryRole
from modern_di_replicas.cluster.server import Server
from modern_di_replicas.consistency.token import ConsistencyToken
from modern_di_replicas.errors import NoReplicaAvailable, UnknownGroupError
from modern_di_replicas.observability.emission import Hooks
from modern_di_replicas.observability.events import PoolUse, PrimaryChanged, ReadRefused, SnapshotPublished
from modern_di_replicas.routing.balancing import Balancer, with_affinity
from modern_di_replicas.routing.changes import LastPrimary
from modern_di_replicas.routing.decision import Cause, on_primary
from modern_di_replicas.routing.eligibility import eligible
from modern_di_replicas.routing.positions import Positions
from modern_di_replicas.routing.rollout import Rollout
from modern_di_replicas.routing.snapshot import Snapshot
from modern_di_replicas.servers import DEFAULT_GROUP


_FALLBACK: typing.Final = frozenset({Cause.NO_REPLICA_SERVES, Cause.NOT_FRESH, Cause.REPLICA_FAILED})
"""Why a read uses the primary instead of a replica."""


class Watcher(typing.Protocol):
    """The monitor as the topology sees it: it can probe a server on request."""

    @property
    def timeout(self) -> float:
        """Timeout in seconds for a server's answer."""

    def probe_now(self, name: str) -> collections.abc.Awaitable[object]:
        """Ask one server for its position now; concurrent callers share the answer."""

    async def primary_answers(self) -> bool:
        """Wait for the primary's next answer; return whether it came before the primary counts as down."""


class Topology:
    """The replicas and the primary of one application; `add` adds each server.

    Args:
        primary: the engine of the primary.
        balancer: chooses one of several eligible servers.
        primary_reads: whether the primary serves the reads that no replica can.
        writes: records the writes of this process.
        rollout: which reads may use a replica; None for all.
        hooks: receive the events; None where there are none.
        primary_capacity: the limit of the primary's pool.
        fallback: limits the reads that use the primary because no replica can serve them; None for no limit.

    """

    def __init__(  # noqa: PLR0913  # each is one fact, by its name
        self,
        *,
        primary: AnyEngine,
        balancer: Balancer,
        primary_reads: bool = True,
        writes: Writes | None = None,
        rollout: Rollout | None = None,
        hooks: Hooks | None = None,
        primary_capacity: int = 0,
        fallback: FallbackLimit | None = None,
    ) -> None:
        self.servers: tuple[Server, ...] = ()
        """Every server that can be a replica."""
        self.primary = primary
        self.snapshot: Snapshot | None = None
        """The latest snapshot of the monitor; None while none runs."""
        self.positions = Positions()
        """The known positions of the servers."""
        self.watcher: Watcher | None = None
        """The monitor; None while none runs."""
        self.resume: collections.abc.Callable[[], None] | None = None
        """Starts the monitor in a process that was forked from one where it runs; None where it runs, or should not."""
        self.rollout = rollout
        """Which reads may use a replica; None for all."""
        self.hooks = hooks
        """Receive the events; None where there are none."""
        self._primary_capacity = primary_capacity
        self._fallback = fallback
        self._last_primary = LastPrimary()
        self._balancer = balancer
        self._primary_reads = primary_reads
        self._writes = writes
        self._declared: dict[str, tuple[Server, ...]] = {}
        self._serving = self._declared

    def add(self, server: Server) -> None:
        """Add a server; before any monitor runs."""
        self.servers = (*self.servers, server)
        if not server.is_declared_primary:
            for group in server.groups:
                self._declared[group] = (*self._declared.get(group, ()), server)

    def publish(self, snapshot: Snapshot | None) -> None:
        """Publish a snapshot of the monitor; None when it ends, and only sessions report failures."""
        self.snapshot = snapshot
        if snapshot is None:
            self.positions, self._serving = Positions(), self._declared
        else:
            self.positions.publish(snapshot)
            self._serving = eligible(self.servers, snapshot)
        if self.hooks is not None:
            self._announce(self.hooks, snapshot)

    def forget_process(self) -> None:
        """Reset the state in a forked process; hooks receive no event."""
        self.watcher = self.snapshot = None
        self.positions, self._serving, self._last_primary = Positions(), self._declared, LastPrimary()
        for server in self.servers:
            server.health.forget()
        if self._fallback is not None:
            self._fallback.forget()

    def ensure_watched(self) -> None:
        """Start the monitor, if this process was forked from one where it runs.

        Raises:
            ConfigurationError: the primary refuses the user, the password or the database.

        """
        if self.watcher is None and self.resume is not None:
            self.resume()

    def _announce(self, hooks: Hooks, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            self._last_primary = LastPrimary()
        elif (former := self._last_primary.follow(snapshot)) is not None:
            hooks.emit(PrimaryChanged(former=former, primary=typing.cast(str, snapshot.primary)))
        hooks.emit(SnapshotPublished(snapshot=snapshot, pools=() if snapshot is None else tuple(self._pools())))

    def _pools(self) -> collections.abc.Iterator[PoolUse]:
        for server in self.servers:
            yield PoolUse(server=server.name, pool="replica", in_use=server.pool.in_use, capacity=server.capacity)
        if isinstance(self.primary, PrimaryRole) and self.leader is not None:
            yield PoolUse(
                server=self.leader, pool="primary", in_use=self.primary.in_use, capacity=self._primary_capacity
            )

    def choose_server(
        self,
        group: str | None = None,
        *,
        affinity: str | None = None,
        lsn: float = 0,
        without: collections.abc.Set[str] = frozenset(),
    ) -> Server | None:
        """Return a replica for one unit of work; None when none can serve it.

        Args:
            group: the group the replica has to belong to.
            affinity: the same key gets the same replica, as long as that one serves.
            lsn: the position that the replica must have reached.
            without: names of replicas on which it has failed.

        """
        servers = self.serving(group)
        if without:
            servers = [server for server in servers if server.name not in without]
        if lsn:
            reached = self.positions.reached
            servers = [server for server in servers if reached.get(server.name, -1) >= lsn]
        if len(servers) < 2:  # noqa: PLR2004  # nothing to choose from
            return servers[0] if servers else None
        choose = self._balancer.choose if affinity is None else functools.partial(with_affinity, affinity)
        chosen = choose(servers)
        if not chosen.has_room:
            # A full pool is skipped while another has room.
            chosen = choose([server for server in servers if server.has_room] or servers)
        return chosen

    def serving(self, group: str | None) -> collections.abc.Sequence[Server]:
        """Return the replicas that serve the reads of a group now."""
        servers: collections.abc.Sequence[Server] = self._serving.get(group or DEFAULT_GROUP, ())
        for server in servers:
            if server.health.is_down:  # rare, so the list is made only then
                return [server for server in servers if not server.health.is_down]
        return servers

    def declared(self, group: str | None) -> collections.abc.Sequence[Server]:
        """Return the replicas that are declared for a group, whether they serve or not."""
        return self._declared.get(group or DEFAULT_GROUP, ())

    def furthest(self, name: str) -> float:
        """Return the furthest known position of a server on this timeline; 0 if unknown."""
        return self.positions.furthest.get(name, 0)

    def leads_to_several(self, name: str) -> bool:
        """Return whether a name leads to several servers, so that each connection may reach another one."""
        return name in self.positions.several

    @property
    def leader(self) -> str | None:
        """The name of the server that is the primary; None when none is known."""
        return None if self.snapshot is None else self.snapshot.primary

    @property
    def has_lost_primary(self) -> bool:
        """Whether a monitor runs and knows no primary."""
        return self.snapshot is not None and self.snapshot.primary is None

    @property
    def own_write(self) -> ConsistencyToken | None:
        """The token of the last write of this process."""
        return None if self._writes is None else self._writes.latest

    def forget_writes(self) -> None:
        """Forget the positions of writes: another cluster, or a restored backup, has replaced this one."""
        self.positions.forget()
        if self._writes is not None:
            self._writes.latest = None

    def has_written(self, token: ConsistencyToken) -> bool:
        """Return whether the primary is known to have reached a token."""
        own = self.own_write
        if own is not None and own.is_after(token):
            return True
        return self.positions.has_written(token)

    def check_group(self, group: str | None) -> None:
        """Check that a group exists; without any replicas every group does.

        Raises:
            UnknownGroupError: there are replicas, and none is declared for `group`.

        """
        if group is not None and self._declared and group not in self._declared:
            raise UnknownGroupError(group=group, known=tuple(sorted(self._declared)))

    def kept_on_primary(self, affinity: str | None) -> tuple[Cause, str] | None:
        """Return why the rollout keeps a read on the primary; None when it does not."""
        if self.rollout is None:
            return None
        if self.rollout.shadow:
            return Cause.SHADOW, "shadow mode"
        return self.rollout.kept_on_primary(affinity)

    def without_replica(
        self, group: str | None, cause: Cause = Cause.NO_REPLICA_SERVES, reason: str = "no replica to serve it"
    ) -> AnyEngine:
        """Return the primary's engine, for a read that no replica can serve.

        Args:
            group: the group of the read.
            cause: why none can.
            reason: the same in words.

        Raises:
            UnknownGroupError: there are replicas, and none is declared for `group`.
            NoReplicaAvailable: the settings say `primary_reads=False`.

        """
        if not self._declared:
            return self.primary_for(Cause.NO_REPLICAS, "no replicas are declared")
        self.check_group(group)
        if not self._primary_reads:
            raise self.refusal(group)
        return self.primary_for(cause, reason)

    def refusal(self, group: str | None) -> NoReplicaAvailable:
        """Return the error of a read that the primary may not serve, and emit its event."""
        is_in_shadow = self.rollout is not None and self.rollout.shadow  # which refuses nothing
        if self.hooks is not None and not is_in_shadow:
            self.hooks.emit(ReadRefused(by="primary_reads", group=group))
        return NoReplicaAvailable(group=group)

    def limited(self, primary: Engine, cause: Cause) -> Engine:
        """Return the primary's engine for a read, with the limit if a replica should have served it."""
        return primary if self._fallback is None or cause not in _FALLBACK else self._fallback.applied_to(primary)

    def primary_for(self, cause: Cause, reason: str) -> AnyEngine:
        """Return the primary's engine with the reason why a read uses it."""
        primary = self.primary
        if isinstance(primary, PrimaryRole):
            return primary.with_decision(on_primary(cause, reason), self.limited(primary.sync_engine, cause))
        return primary  # a test may put any engine or connection in its place

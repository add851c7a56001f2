"""Derive the primary, the snapshot and the target of writes from the answers of all servers."""

import abc
import collections.abc
import logging
import math
import time
import typing

from modern_di_replicas.cluster.connecting import connect_args
from modern_di_replicas.cluster.engines.primary import PrimaryRole
from modern_di_replicas.cluster.monitoring.journal import Journal
from modern_di_replicas.cluster.server import Server
from modern_di_replicas.cluster.topology import Topology
from modern_di_replicas.routing.snapshot import Observation, Role, ServerState, Snapshot, assemble, find_primary
from modern_di_replicas.routing.succession import History, find_successor
from modern_di_replicas.settings import ReplicationSettings


logger = logging.getLogger("modern_di_replicas")

JITTER: typing.Final = 0.1
"""Jitter: each pause is longer or shorter by up to this share, so that many processes do not ask at once."""


class Conclusions(abc.ABC):
    """Evaluates the answers of the servers, which `Monitor` asks.

    Args:
        topology: receives each snapshot.
        settings: how often and how long servers are asked.

    """

    def __init__(self, topology: Topology, settings: ReplicationSettings) -> None:
        self._topology = topology
        self._settings = settings
        self._not_promotable = {server.name for server in topology.servers if not server.declared.promotable}
        self._observed: dict[str, Observation] = {}
        """The last answer of each server that is up."""
        self._declared = next(server.name for server in topology.servers if server.is_declared_primary)
        self._primary = self._declared
        self._lost_primary_at: float | None = None
        self._system: int | None = None
        self._timeline = 0
        self._newest: dict[str, int] = {}
        """The newest timeline each server was on in this PostgreSQL cluster."""
        self._diverged: dict[str, Observation] = {}
        """Standbys that are ahead of a primary that was restored from a backup."""
        self._unwatched: set[str] = set()
        """Servers whose watch was cancelled from outside."""
        self._concluded_at = -math.inf
        self._journal = Journal(settling=2 * self._answer_time)

    @abc.abstractmethod
    def _probe_all_now(self) -> None:
        """Probe every server now."""

    @property
    def _answer_time(self) -> float:
        """Seconds until each server that is up now has answered or is declared down."""
        return self._settings.probe_interval * (1 + JITTER) + self._settings.probe_timeout

    def _publish_unknown(self) -> None:
        states = {server.name: ServerState(name=server.name) for server in self._topology.servers}
        self._topology.publish(Snapshot(servers=states))

    def _conclude(self) -> None:
        """Publish a snapshot of all observations, and let writes follow a primary that moved."""
        primary = self._find_primary()
        positions = self._topology.positions
        if primary is None:
            self._lost_primary_at = self._lost_primary_at or time.monotonic()
            ours = self._same_cluster()
            newest = (seen.timeline for seen in self._promotable(ours).values() if self._system == seen.system)
            before, self._timeline = self._timeline, max(self._timeline, *newest, 0)
            if self._timeline > before:
                self._probe_all_now()
            positions.assume(ours.values())
        else:
            leader = self._observed[primary]
            if positions.has_gone_back(leader):
                self._note_restored_backup(primary, leader)
            if primary != self._primary or leader.timeline > self._timeline > 0 or self._is_fenced:
                self._move_to(primary)
            self._lost_primary_at, self._system, self._timeline = None, leader.system, leader.timeline
            positions.follow(leader)
        self._note_timelines()
        snapshot = assemble(
            (server.name for server in self._topology.servers),
            self._observed,
            history=positions.history,
            primary=primary,
            timeline=self._timeline,
            lost_primary_at=self._lost_primary_at,
            system=self._system,
            diverged=self._diverged,
        )
        for state in snapshot.servers.values():
            if state.role is Role.STANDBY:
                positions.note_written(self._observed[state.name])
        self._journal.log_roles(snapshot, not_promotable=self._not_promotable)
        if primary is None and self._unwatched:
            self._publish_unknown()  # one of them may be the primary: the lag of its replicas would be unbounded
        else:
            self._topology.publish(snapshot)
        self._concluded_at = time.monotonic()
        engine, is_former = self._topology.primary, snapshot.servers[self._primary].role in (Role.FENCED, Role.FOREIGN)
        if is_former and isinstance(engine, PrimaryRole):
            longest = self._succession_time + self._answer_time
            engine.fence(timeout=min(longest, self._settings.connect_timeout))

    def _same_cluster(self) -> dict[str, Observation]:
        """Return the answers of the servers that belong to the known PostgreSQL cluster."""
        system = self._system
        if system is None and self._declared in self._observed:
            system = self._observed[self._declared].system
        return {name: seen for name, seen in self._observed.items() if system in (None, seen.system)}

    def _promotable(self, observed: collections.abc.Mapping[str, Observation]) -> dict[str, Observation]:
        return {name: seen for name, seen in observed.items() if name not in self._not_promotable}

    def _find_primary(self) -> str | None:
        primary = find_primary(self._promotable(self._same_cluster()), current=self._primary, timeline=self._timeline)
        if primary is not None or self._system is None or self._lost_primary_at is None:
            return primary
        silent = time.monotonic() - self._lost_primary_at
        if silent < self._succession_time:
            return None
        successor = find_successor(
            self._observed,
            history=History(system=self._system, timeline=self._timeline),
            declared=self._declared,
            newest=self._newest,
            not_promotable=self._not_promotable,
        )
        if successor is not None:
            self._replace_cluster(successor, silent)
        return successor

    @property
    def _succession_time(self) -> float:
        """For how many seconds the primary must be lost before another history may replace it."""
        return self._settings.probe_timeout + 2 * self._settings.probe_interval

    def _replace_cluster(self, successor: str, silent: float) -> None:
        """Forget a PostgreSQL cluster whose primary is gone: another one, or a restored backup, is at its addresses."""
        seen = self._observed[successor]
        what = "a restored backup of its cluster" if seen.system == self._system else "another PostgreSQL cluster"
        logger.warning(
            "The primary has been gone for %.1f s, and %s has %s (system %d, timeline %d; before: system %d, timeline "
            "%d): it is the primary now. Positions and tokens of the former one are discarded.",
            silent,
            successor,
            what,
            seen.system,
            seen.timeline,
            self._system,
            self._timeline,
        )
        self._topology.forget_writes()
        self._newest.clear()
        self._diverged.clear()
        self._system, self._timeline = seen.system, seen.timeline
        self._follow(successor)

    def _note_restored_backup(self, primary: str, leader: Observation) -> None:
        """Forget the positions from before a backup was restored on the same timeline."""
        self._diverged = {
            name: seen
            for name, seen in self._observed.items()
            if seen.in_recovery and seen.system == leader.system and seen.lsn > leader.lsn
        }
        ahead = ", ".join(self._diverged)
        logger.warning(
            "%s has less than before on the same timeline: a backup was restored. Positions and tokens "
            "are discarded%s.",
            primary,
            f"; standbys that are ahead of it are not used until they are rebuilt: {ahead}" if ahead else "",
        )
        self._topology.forget_writes()

    def _note_timelines(self) -> None:
        for name, seen in self._observed.items():
            if seen.system == self._system:
                self._newest[name] = max(seen.timeline, self._newest.get(name, 0))
        _, written = self._topology.positions.history.last or (0.0, 0)
        for name, before in list(self._diverged.items()):
            seen = self._observed.get(name, before)
            if seen.lsn < before.lsn or (seen.started != before.started and before.lsn <= written):
                del self._diverged[name]  # it has been rebuilt from the primary

    @property
    def _is_fenced(self) -> bool:
        return isinstance(self._topology.primary, PrimaryRole) and self._topology.primary.is_fenced

    def _move_to(self, primary: str) -> None:
        logger.warning("The primary is %s now; it was %s. Writes follow.", primary, self._primary)
        self._topology.positions.history.clear()
        self._follow(primary)

    @property
    def _leader(self) -> Server:
        return next(server for server in self._topology.servers if server.name == self._primary)

    def _follow(self, primary: str) -> None:
        self._primary = primary
        if isinstance(self._topology.primary, PrimaryRole):
            leader = self._leader.declared
            self._topology.primary.follow(leader.url, connect_args=connect_args(self._settings, leader, "primary"))

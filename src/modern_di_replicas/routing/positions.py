"""The known position of each server, and the position that a read needs. Pure."""

import collections.abc
import dataclasses
import math
import typing

from modern_di_replicas.consistency.token import ConsistencyToken
from modern_di_replicas.routing.lag import LsnHistory
from modern_di_replicas.routing.snapshot import Observation, Role, Snapshot


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Freshness:
    """The freshness that a read asks for."""

    after: tuple[ConsistencyToken, ...] = ()
    """All writes from before these tokens were made."""
    max_age: float | None = None
    """All writes older than this, in seconds."""

    def __str__(self) -> str:
        if self.max_age is not None:
            return f"the last {self.max_age:g} s"
        return "its client's last write" if self.after else "caught up"


@dataclasses.dataclass(slots=True)
class Positions:
    """Lower bounds of the servers' positions, and the primary's positions over time.

    All of them are on one timeline. When a promotion begins a new one, they are collected again.

    In a synchronous application one thread writes, and many read: values that a reader has combined are of one timeline
    if `epoch` was the same even number before and after.
    """

    epoch: int = 0
    """Grows when the positions are reset, once before and once after; odd in between."""

    timeline: int = 0
    began: int | None = None
    """The first known position of the primary on this timeline: writes that survived the promotion are before it.

    None until a primary was seen on it.
    """
    written: int = 0
    """A lower bound of the primary's position."""
    written_at: float = 0.0
    """When the answer with that position arrived."""
    database: str | None = None
    """The database of these positions; None until a server has answered."""
    reached: dict[str, float] = dataclasses.field(default_factory=dict)
    """A lower bound of each server's visible position, unless it has crashed since."""
    furthest: dict[str, float] = dataclasses.field(default_factory=dict)
    """The highest visible position of each server on this timeline; after a crash it restarts with a lower one."""
    history: LsnHistory = dataclasses.field(default_factory=LsnHistory)
    """The primary's positions over time."""
    former: set[str] = dataclasses.field(default_factory=set)
    """Databases of replaced clusters: their writes do not exist here, and are not waited for."""

    several: set[str] = dataclasses.field(default_factory=set)
    """Names that lead to several servers: the next connection may have another position."""

    @property
    def answered_at(self) -> float | None:
        """When the primary was asked for its last answer; None without one."""
        last = self.history.last
        return None if last is None else last[0]

    def follow(self, leader: Observation) -> None:
        """Apply an answer of the primary."""
        if leader.timeline != self.timeline or self.began is None or self.has_gone_back(leader):
            self.epoch += 1
            self.timeline, self.began, self.written, self.written_at = leader.timeline, leader.lsn, 0, 0.0
            self._clear()
        self.database = leader.identity
        self.former.discard(self.database)
        self.note_written(leader)
        if leader.at >= (self.answered_at or 0.0):
            self.history.add(leader.at, leader.lsn)

    def has_gone_back(self, leader: Observation) -> bool:
        """Return whether a primary has gone back on the same timeline: a backup was restored."""
        if self.began is None or leader.timeline != self.timeline or self.database != leader.identity:
            return False
        return leader.at > self.written_at and leader.written < self.written

    def note_written(self, seen: Observation) -> None:
        """Apply the primary's position as known by a server on this timeline."""
        if seen.written > self.written:
            self.written, self.written_at = seen.written, seen.answered

    def forget(self) -> None:
        """Forget the positions of writes: another cluster, or a restored backup, has replaced this one."""
        if self.database is not None:
            self.former.add(self.database)
        self.epoch += 1
        self.timeline, self.began, self.written, self.written_at, self.database = 0, None, 0, 0.0, None
        self._clear()

    def _clear(self) -> None:
        self.reached.clear()
        self.furthest.clear()
        self.history.clear()
        self.epoch += 1

    def assume(self, standbys: collections.abc.Iterable[Observation]) -> None:
        """Take the database and the timeline from the standbys, if they agree and no primary was ever seen.

        Their rows do not depend on which server is the primary.
        """
        if self.began is not None:
            return
        places = {(seen.identity, seen.timeline) for seen in standbys}
        self.database, self.timeline = places.pop() if len(places) == 1 else (None, 0)

    def note_standby(self, name: str, standby: Observation) -> None:
        """Apply an answer of a standby on this timeline."""
        self.reached[name] = standby.lsn
        self.furthest[name] = max(standby.lsn, self.furthest.get(name, 0))
        self.note_written(standby)

    def publish(self, snapshot: Snapshot) -> None:
        """Apply a snapshot; the primary by another name shows everything."""
        self.reached = {
            state.name: math.inf if state.role is Role.ALIAS else typing.cast(int, state.lsn)
            for state in snapshot.servers.values()
            if state.role in (Role.STANDBY, Role.ALIAS) and state.name not in self.several
        }
        for state in snapshot.servers.values():
            if state.role is Role.STANDBY and state.name in self.reached:
                self.furthest[state.name] = max(self.reached[state.name], self.furthest.get(state.name, 0))

    def required(self, freshness: Freshness, *, now: float) -> int | None:
        """Return the LSN that a server must have reached to serve a read; None if unknown.

        Args:
            freshness: the freshness that the read asks for.
            now: the time, by the clock of the observations.

        """
        required = 0
        for token in freshness.after:
            lsn = self._required_for(token)
            if lsn is None:
                return None
            required = max(required, lsn)
        if freshness.max_age is not None:
            lsn = self.history.first_since(now - freshness.max_age)
            return None if lsn is None else max(required, lsn)
        return required

    def _required_for(self, token: ConsistencyToken) -> int | None:
        if token.database in self.former:
            return 0
        if token.timeline > self.timeline or token.database != self.database:
            return None  # a promotion that was not seen here yet, or another database
        # Of an older timeline only the writes before the promotion exist; no server ever reaches the rest.
        if token.timeline == self.timeline:
            return token.lsn
        return None if self.began is None else min(token.lsn, self.began)

    def has_written(self, token: ConsistencyToken) -> bool:
        """Return whether the primary is known to have reached a token."""
        required = self._required_for(token)
        return required is not None and required <= max(self.written, self.began or 0)

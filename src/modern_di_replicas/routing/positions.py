"""How far each server is known to be, and how far a read needs it to be. Pure: observations in, positions out."""

import collections.abc
import dataclasses
import math
import typing

from modern_di_replicas.consistency.token import ConsistencyToken
from modern_di_replicas.routing.lag import LsnHistory
from modern_di_replicas.routing.snapshot import Observation, Role, Snapshot


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Freshness:
    """What a read has to include."""

    after: tuple[ConsistencyToken, ...] = ()
    """Everything that was written when these tokens were made."""
    max_age: float | None = None
    """Everything that was written longer ago than this, in seconds."""

    def __str__(self) -> str:
        if self.max_age is not None:
            return f"the last {self.max_age:g} s"
        return "what its client has written" if self.after else "caught up"


@dataclasses.dataclass(slots=True)
class Positions:
    """How far the servers are, at the least; and how far the primary was when.

    All of it is about one timeline. When a promotion begins another, everything is learnt anew.

    In a synchronous application one thread writes, and many read: what a reader has put together from several of these
    is of one timeline if `epoch` was the same even number before and after.
    """

    epoch: int = 0
    """Grows whenever positions begin to be learnt anew, and when those of before are forgotten; odd in between."""

    timeline: int = 0
    began: int | None = None
    """Where the primary was when it was first seen on this timeline: what survived the promotion lies before.

    None while no primary was seen on it.
    """
    written: int = 0
    """What the primary has written, at the least."""
    written_at: float = 0.0
    """When the answer came that said so."""
    database: str | None = None
    """The database of these positions; None until a server has answered."""
    reached: dict[str, float] = dataclasses.field(default_factory=dict)
    """What each server shows to its readers, at the least, unless it has crashed since."""
    furthest: dict[str, float] = dataclasses.field(default_factory=dict)
    """The most each server has ever shown on this timeline; one that crashed comes back with less."""
    history: LsnHistory = dataclasses.field(default_factory=LsnHistory)
    """Where the primary was when."""
    former: set[str] = dataclasses.field(default_factory=set)
    """Databases of clusters that were replaced: what was written there is not here, and is not waited for."""

    several: set[str] = dataclasses.field(default_factory=set)
    """Names behind which there are several servers: the next connection leads to another position."""

    @property
    def answered_at(self) -> float | None:
        """When the primary was asked what it answered last; None while it has not."""
        last = self.history.last
        return None if last is None else last[0]

    def follow(self, leader: Observation) -> None:
        """Take over what the primary said of itself."""
        if leader.timeline != self.timeline or self.began is None or self.is_set_back(leader):
            self.epoch += 1
            self.timeline, self.began, self.written, self.written_at = leader.timeline, leader.lsn, 0, 0.0
            self._clear()
        self.database = leader.identity
        self.former.discard(self.database)
        self.note_written(leader)
        if leader.at >= (self.answered_at or 0.0):
            self.history.add(leader.at, leader.lsn)

    def is_set_back(self, leader: Observation) -> bool:
        """Return whether a primary has less than it had on the same timeline: a backup was restored."""
        if self.began is None or leader.timeline != self.timeline or self.database != leader.identity:
            return False
        return leader.at > self.written_at and leader.written < self.written

    def note_written(self, seen: Observation) -> None:
        """Take over what the primary has written, as a server on this timeline knows it."""
        if seen.written > self.written:
            self.written, self.written_at = seen.written, seen.answered

    def forget(self) -> None:
        """Forget what was written: another cluster, or a restored backup, has taken the place of this one."""
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
        """Take over where the standbys are, as long as no primary was ever seen, and they agree.

        Their rows do not depend on which server is the primary.
        """
        if self.began is not None:
            return
        places = {(seen.identity, seen.timeline) for seen in standbys}
        self.database, self.timeline = places.pop() if len(places) == 1 else (None, 0)

    def saw(self, name: str, standby: Observation) -> None:
        """Take over what a standby on this timeline said of itself."""
        self.reached[name] = standby.lsn
        self.furthest[name] = max(standby.lsn, self.furthest.get(name, 0))
        self.note_written(standby)

    def publish(self, snapshot: Snapshot) -> None:
        """Take over what is known of all servers; the primary by another name shows everything."""
        self.reached = {
            state.name: math.inf if state.role is Role.ALIAS else typing.cast(int, state.lsn)
            for state in snapshot.servers.values()
            if state.role in (Role.STANDBY, Role.ALIAS) and state.name not in self.several
        }
        for state in snapshot.servers.values():
            if state.role is Role.STANDBY and state.name in self.reached:
                self.furthest[state.name] = max(self.reached[state.name], self.furthest.get(state.name, 0))

    def required(self, freshness: Freshness, *, now: float) -> int | None:
        """Return the LSN a server must have reached to serve a read; None when that is not known.

        Args:
            freshness: what the read has to include.
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
        # Of an older timeline only what lies before the promotion is left; no server will ever reach the rest.
        if token.timeline == self.timeline:
            return token.lsn
        return None if self.began is None else min(token.lsn, self.began)

    def has_written(self, token: ConsistencyToken) -> bool:
        """Return whether the primary is known to have written what a token says."""
        required = self._required_for(token)
        return required is not None and required <= max(self.written, self.began or 0)

"""What is known of the servers at one moment: the facts a decision reads. Pure."""

import collections.abc
import dataclasses
import enum
import typing

from modern_di_replicas.consistency.token import identify
from modern_di_replicas.routing.lag import LsnHistory


class Role(enum.Enum):
    """What a server is for the others."""

    PRIMARY = "primary"
    STANDBY = "standby"
    ALIAS = "alias"
    """It accepts writes like the primary, on the same timeline: it is the primary by another name."""
    FENCED = "fenced"
    """It claims to be the primary, on an older timeline: its newer rows are unknown to the primary."""
    LEFT_BEHIND = "left behind"
    """A standby that has not followed the primary to its timeline, or to the backup it was restored from: its rows may
    be those of a former primary."""
    FOREIGN = "foreign"
    """It belongs to another PostgreSQL cluster."""
    UNKNOWN = "unknown"


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Observation:
    """What one server said of itself."""

    at: float
    """When it was asked, in seconds of the application's own clock: whatever was written before, it includes."""
    in_recovery: bool
    lsn: int
    """On a primary what is flushed, on a standby what is replayed, which only grows until it crashes."""
    written: int
    """What the primary has written at the least, as this server knows: on a standby, what it has received."""
    timeline: int
    """Each promotion begins a new one, with a higher number."""
    system: int
    """The identity of the PostgreSQL cluster, the same on a primary and all its standbys."""
    database: str
    """The name of the database."""
    behind: float | None = None
    """How long ago the last transaction that a standby has replayed was committed, by the server's own clock; None when
    it does not say."""
    answered: float = 0.0
    """When the answer came, by the same clock."""
    version: str = ""
    """The version of PostgreSQL."""
    started: object = None
    """When the server started; None when it does not say."""

    @property
    def identity(self) -> str:
        """The identity of the database among those of all clusters, as tokens have it."""
        return identify(self.system, self.database)


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class ServerState:
    """What is known of one server."""

    name: str
    up: bool = False
    role: Role = Role.UNKNOWN
    lsn: int | None = None
    timeline: int | None = None
    lag_bytes: int | None = None
    """How far it is behind the primary, in bytes of WAL; None when it is not known."""
    lag_seconds: float | None = None
    """How long ago the primary was where this server is; None when it is not known."""
    lag_unknown_since: float | None = None
    """Since when the lag is not known, because the primary does not answer; None while it is known."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Snapshot:
    """What is known of all servers; replaced as a whole, so that a reader never sees half of a change."""

    servers: collections.abc.Mapping[str, ServerState]
    primary: str | None = None
    """The name of the server to write to; None when no server claims to be the primary."""


def find_primary(
    observed: collections.abc.Mapping[str, Observation], *, current: str | None, timeline: int
) -> str | None:
    """Return the primary: of the servers that claim to be it, one on the newest timeline of all.

    Two of them on the same timeline are one server by two names; then the current primary remains it.

    Args:
        observed: what the servers of one PostgreSQL cluster said last.
        current: the primary until now.
        timeline: the newest timeline there was before; a server on an older one is not the primary any more.

    """
    newest = max([timeline, *(seen.timeline for seen in observed.values())])
    claims = [name for name, seen in observed.items() if not seen.in_recovery and seen.timeline == newest]
    return current if current in claims else min(claims, default=None)


def assemble(  # noqa: PLR0913  # each is one fact, by its name
    names: collections.abc.Iterable[str],
    observed: collections.abc.Mapping[str, Observation],
    *,
    history: LsnHistory,
    primary: str | None,
    timeline: int,
    lost_primary_at: float | None,
    system: int | None = None,
    diverged: collections.abc.Container[str] = (),
) -> Snapshot:
    """Return what is known of all servers.

    Args:
        names: every server.
        observed: what those that are up said last.
        history: where the primary was when.
        primary: the name of the primary; None when there is none.
        timeline: the newest timeline there is.
        lost_primary_at: since when the primary has not answered; None while it does.
        system: the PostgreSQL cluster of the primary, also while it does not answer; None while it is not known.
        diverged: standbys that have what the primary, restored from a backup, has not.

    """
    if primary is not None:
        system = observed[primary].system
    states: dict[str, ServerState] = {}
    for name in names:
        seen = observed.get(name)
        if seen is None:
            states[name] = ServerState(name=name)
            continue
        role = _role(name, seen, primary=primary, system=system, timeline=timeline)
        if role is Role.STANDBY and name in diverged:
            role = Role.LEFT_BEHIND
        last = history.last
        measured = role is Role.STANDBY and lost_primary_at is None and last is not None
        states[name] = ServerState(
            name=name,
            up=True,
            role=role,
            lsn=seen.lsn,
            timeline=seen.timeline,
            lag_bytes=max(0, typing.cast(tuple[float, int], last)[1] - seen.lsn) if measured else None,
            lag_seconds=_lag_seconds(history, seen) if measured else None,
            lag_unknown_since=lost_primary_at if role is Role.STANDBY else None,
        )
    return Snapshot(servers=states, primary=primary)


def _lag_seconds(history: LsnHistory, seen: Observation) -> float | None:
    """Return how many seconds a standby is behind, at the most; None when that is not known.

    Where the samples do not reach back so far, what it says itself bounds it from above: everything that was committed
    before the last transaction it has replayed, it shows. That grows while the primary writes nothing, so it counts
    only where the samples do not tell. By then it is at least as far behind as the samples reach, whatever the two
    clocks say.
    """
    measured = history.lag_seconds(seen.at, seen.lsn)
    if measured is not None or seen.behind is None or seen.lsn == 0 or history.since is None:
        return measured
    return max(seen.behind, seen.at - history.since)


def _role(name: str, seen: Observation, *, primary: str | None, system: int | None, timeline: int) -> Role:
    if name == primary:
        return Role.PRIMARY
    if system not in (None, seen.system):
        return Role.FOREIGN
    if 0 < timeline < seen.timeline:  # it is not promotable, so its timeline did not count
        return Role.LEFT_BEHIND if seen.in_recovery else Role.FENCED
    if seen.in_recovery:
        return Role.STANDBY if seen.timeline >= timeline else Role.LEFT_BEHIND
    return Role.ALIAS if primary is not None and seen.timeline >= timeline else Role.FENCED

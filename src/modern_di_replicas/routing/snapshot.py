"""The state of the servers at one moment, on which decisions are based. Pure."""

import collections.abc
import dataclasses
import enum
import typing

from modern_di_replicas.consistency.token import identify
from modern_di_replicas.routing.lag import LsnHistory


class Role(enum.Enum):
    """The role of a server in the topology."""

    PRIMARY = "primary"
    STANDBY = "standby"
    ALIAS = "alias"
    """It accepts writes like the primary, on the same timeline: it is the primary by another name."""
    FENCED = "fenced"
    """It runs as a primary on an older timeline: its later writes do not exist on the primary."""
    LEFT_BEHIND = "left behind"
    """A standby that has not followed the primary to its timeline, or its restored backup: its rows may diverge."""
    FOREIGN = "foreign"
    """It belongs to another PostgreSQL cluster."""
    UNKNOWN = "unknown"


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Observation:
    """The answer of one server."""

    at: float
    """When it was asked, in seconds of the application's own clock; the answer includes every earlier write."""
    in_recovery: bool
    lsn: int
    """The flush position of a primary, or the replay position of a standby, which only grows until it crashes."""
    written: int
    """A lower bound of the primary's position, as known by this server: on a standby, its receive position."""
    timeline: int
    """Each promotion begins a new one, with a higher number."""
    system: int
    """The identity of the PostgreSQL cluster, the same on a primary and all its standbys."""
    database: str
    """The name of the database."""
    behind: float | None = None
    """Seconds since the commit of the last replayed transaction, by the clock of the standby; None if unknown."""
    answered: float = 0.0
    """When the answer came, by the same clock."""
    version: str = ""
    """The version of PostgreSQL."""
    started: object = None
    """When the server started; None if unknown."""

    @property
    def identity(self) -> str:
        """The identity of the database as used in tokens, unique among all clusters."""
        return identify(self.system, self.database)


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class ServerState:
    """The state of one server."""

    name: str
    up: bool = False
    role: Role = Role.UNKNOWN
    lsn: int | None = None
    timeline: int | None = None
    lag_bytes: int | None = None
    """Its lag in bytes of WAL; None if unknown."""
    lag_seconds: float | None = None
    """Its lag in seconds: how long ago the primary was at its position; None if unknown."""
    lag_unknown_since: float | None = None
    """Since when the lag is unknown, because the primary does not answer; None while it is known."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Snapshot:
    """The state of all servers; replaced as a whole, so that a reader never sees half of a change."""

    servers: collections.abc.Mapping[str, ServerState]
    primary: str | None = None
    """The name of the server to write to; None when no server runs as a primary."""


def find_primary(
    observed: collections.abc.Mapping[str, Observation], *, current: str | None, timeline: int
) -> str | None:
    """Return the primary: of the servers that run as one, a server on the newest timeline of all.

    Two of them on the same timeline are one server by two names; the current primary is then kept.

    Args:
        observed: the last answers of the servers of one PostgreSQL cluster.
        current: the primary until now.
        timeline: the newest timeline known before; a server on an older one is a former primary.

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
    """Return the snapshot of all servers.

    Args:
        names: every server.
        observed: the last answers of the servers that are up.
        history: the primary's positions over time.
        primary: the name of the primary; None when there is none.
        timeline: the newest timeline.
        lost_primary_at: since when the primary has not answered; None while it does.
        system: the PostgreSQL cluster of the primary, also while it does not answer; None if unknown.
        diverged: standbys that are ahead of a primary that was restored from a backup.

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
    """Return an upper bound of a standby's lag in seconds; None if unknown.

    Where the samples do not reach back far enough, the standby's own value is the bound: it shows everything that was
    committed before the last transaction it has replayed. That value grows while the primary writes nothing, so it is
    used only if the samples are not enough. In that case the lag is at least as long as the samples reach back,
    whatever the two clocks say.
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
    if 0 < timeline < seen.timeline:  # it is not promotable, so its timeline is ignored
        return Role.LEFT_BEHIND if seen.in_recovery else Role.FENCED
    if seen.in_recovery:
        return Role.STANDBY if seen.timeline >= timeline else Role.LEFT_BEHIND
    return Role.ALIAS if primary is not None and seen.timeline >= timeline else Role.FENCED

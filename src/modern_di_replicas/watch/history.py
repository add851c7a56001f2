"""The recent history: the lag of each replica, and the events. Pure."""

import collections
import collections.abc
import dataclasses
import typing

from modern_di_replicas.observability.events import Ejected, PrimaryChanged, Returned, SnapshotPublished
from modern_di_replicas.observability.hook import Event
from modern_di_replicas.routing.snapshot import Role, Snapshot


BLOCKS: typing.Final = "▁▂▃▄▅▆▇█"
KEPT: typing.Final = 22
"""The number of shown values of a replica's lag."""

SMALLEST_SCALE: typing.Final = 0.1
"""The lowest scale of a sparkline in seconds: less is noise."""


def sparkline(lags: collections.abc.Iterable[float | None], *, full: float) -> str:
    """Return a line of blocks with the heights of the values; a gap for an unknown value."""
    return "".join(" " if lag is None else _block(lag / full) for lag in lags)


def _block(share: float) -> str:
    return BLOCKS[min(len(BLOCKS) - 1, int(share * len(BLOCKS)))]


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Line:
    """An event in words."""

    at: float
    """Seconds since 1970."""
    words: str
    is_bad: bool


class History:
    """A hook that stores the shown values.

    Args:
        clock: the time, in seconds since 1970.

    """

    def __init__(self, clock: collections.abc.Callable[[], float]) -> None:
        self._clock = clock
        self.snapshot: Snapshot | None = None
        self.lags: dict[str, collections.deque[float | None]] = {}
        self.lines: collections.deque[Line] = collections.deque(maxlen=8)
        self._roles: dict[str, Role] = {}

    @property
    def scale(self) -> float:
        """The scale of the sparklines in seconds: the highest value."""
        return max([SMALLEST_SCALE, *(lag for lags in self.lags.values() for lag in lags if lag is not None)])

    def on_event(self, event: Event, /) -> None:
        """Store an event."""
        match event:
            case SnapshotPublished(snapshot=Snapshot() as snapshot):
                self.snapshot = snapshot
                self._note_roles(snapshot)
            case Ejected(server=server, by=by):
                self._add(f"{server} was ejected (by a {by})", is_bad=True)
            case Returned(server=server):
                self._add(f"{server} is used again")
            case PrimaryChanged(former=former, primary=primary):
                self._add(f"the primary is {primary} now; it was {former}", is_bad=True)
            case _:
                pass

    def sample(self) -> None:
        """Store the current lags; called at regular intervals, so that a sparkline is a time line."""
        for name, state in ({} if self.snapshot is None else self.snapshot.servers).items():
            self.lags.setdefault(name, collections.deque(maxlen=KEPT)).append(state.lag_seconds)

    def _note_roles(self, snapshot: Snapshot) -> None:
        for name, state in snapshot.servers.items():
            before = self._roles.get(name)
            if before not in (None, state.role) and Role.UNKNOWN not in (before, state.role):
                self._add(f"{name} is {state.role.value} now", is_bad=state.role in (Role.FENCED, Role.FOREIGN))
            if state.role is not Role.UNKNOWN:
                self._roles[name] = state.role

    def _add(self, words: str, *, is_bad: bool = False) -> None:
        self.lines.append(Line(at=self._clock(), words=words, is_bad=is_bad))

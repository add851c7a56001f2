"""What a client did and saw, and what was done to the servers meanwhile: all that the checker knows."""

import dataclasses
import enum


class Operation(enum.Enum):
    WRITE = "write"
    """Adds one to a register, and returns what it is then."""
    READ = "read"
    """Reads a register with the level SESSION and the client's affinity."""
    BOUNDED = "bounded"
    """Reads a register with the level `Bounded`."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Event:
    """One operation of one client. All times are of the one clock of the process that runs the clients."""

    client: str
    operation: Operation
    key: str
    began: float
    ended: float
    value: int | None
    """What was written or read; None when it failed: whether a write happened is unknown then."""
    worker: int = 0
    """The worker that was asked."""
    port: int | None = None
    """The server that answered."""
    by_replica: bool | None = None
    failure: str = ""
    traceback: str = ""
    """What the application raised."""

    @property
    def is_read(self) -> bool:
        return self.operation is not Operation.WRITE


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Disturbance:
    """A time in which servers did not do what they usually do."""

    name: str
    ports: frozenset[int]
    """The servers it was done to."""
    began: float
    ended: float
    without_primary: bool = False
    """Whether there was no primary meanwhile: then writes fail, and reads that need one."""

    def overlaps(self, began: float, ended: float, *, grace: float) -> bool:
        """Whether something of it, or of a time after it, lies between two moments."""
        return self.began <= ended and self.ended + grace >= began


@dataclasses.dataclass(kw_only=True, slots=True)
class History:
    """Everything that happened in one run."""

    ports: list[int] = dataclasses.field(default_factory=list)
    """Where requests are sent to: at one port, all workers of a server may listen."""
    workers: list[int] = dataclasses.field(default_factory=list)
    """What tells the workers apart: their ports, or their process ids."""
    events: list[Event] = dataclasses.field(default_factory=list)
    disturbances: list[Disturbance] = dataclasses.field(default_factory=list)
    interruption: str = ""
    """What happens to some of the commits now; see `interrupted`."""

"""The operations and results of clients, and the faults of the servers: the input of the checker."""

import dataclasses
import enum


class Operation(enum.Enum):
    WRITE = "write"
    """Adds one to a register, and returns the new value."""
    READ = "read"
    """Reads a register with the level SESSION and the client's affinity."""
    BOUNDED = "bounded"
    """Reads a register with the level `Bounded`."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Event:
    """One operation of a client. All times are from the clock of the process that runs the clients."""

    client: str
    operation: Operation
    key: str
    began: float
    ended: float
    value: int | None
    """The value written or read; None for a failure, after which it is unknown whether a write happened."""
    worker: int = 0
    """The worker that received the request."""
    port: int | None = None
    """The port of the server that answered."""
    by_replica: bool | None = None
    failure: str = ""
    traceback: str = ""
    """The application's traceback."""

    @property
    def is_read(self) -> bool:
        return self.operation is not Operation.WRITE


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Disturbance:
    """A period in which servers behaved unusually."""

    name: str
    ports: frozenset[int]
    """The affected servers."""
    began: float
    ended: float
    without_primary: bool = False
    """Whether there was no primary: then writes fail, and reads that need one."""

    def overlaps(self, began: float, ended: float, *, grace: float) -> bool:
        """Return whether the period, extended by a grace period, overlaps an interval."""
        return self.began <= ended and self.ended + grace >= began


@dataclasses.dataclass(kw_only=True, slots=True)
class History:
    """All events of a run."""

    ports: list[int] = dataclasses.field(default_factory=list)
    """Ports for requests; all workers of a server may listen on one port."""
    workers: list[int] = dataclasses.field(default_factory=list)
    """The identifiers of the workers: their ports, or their process ids."""
    events: list[Event] = dataclasses.field(default_factory=list)
    disturbances: list[Disturbance] = dataclasses.field(default_factory=list)
    interruption: str = ""
    """How some of the commits are interrupted now; see `interrupted`."""

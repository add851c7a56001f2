"""The events that hooks receive. Names in them are of bounded cardinality: servers, handlers, enum members."""

import dataclasses
import typing

from modern_di_replicas.observability.hook import Event
from modern_di_replicas.routing.decision import Cause, Decision
from modern_di_replicas.routing.snapshot import Snapshot


TokenOutcome = typing.Literal[
    "accepted", "ahead", "duplicated", "expired", "foreign", "forged", "malformed", "oversized"
]
"""The result of a client's token: `accepted`, or why it was ignored."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Decided(Event):
    """A server was chosen for a unit of work, after a wait for replicas to catch up if there was one."""

    decision: Decision
    endpoint: str = ""
    """The handler, as `module.name`; empty outside a request."""

    @property
    def is_read(self) -> bool:
        """Whether the unit of work was declared to read."""
        return self.decision.cause is not Cause.WRITE


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class CaughtUp(Event):
    """A unit of work has waited for a replica to be fresh enough."""

    server: str | None
    """The replica; None when none was fresh enough in time."""
    seconds: float
    endpoint: str = ""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Escalated(Event):
    """A unit of work left its replica for the primary."""

    server: str
    """The replica it left."""
    cause: Cause
    reason: str
    """The cause in words."""
    endpoint: str = ""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class ReRun(Event):
    """A statement that a replica refused, cancelled or lost was run again, and has finished.

    It ran on a new connection to the same replica, on another replica, or on the primary: see `again_on`.
    """

    server: str
    """The replica on which it failed."""
    again_on: str
    """Where it was run again: `primary`, or the name of a replica."""
    cause: Cause
    error: str
    """The class of the replica's error."""
    seconds: float
    """How long it took to run again."""
    succeeded: bool
    endpoint: str = ""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class ReadRefused(Event):
    """No replica could serve a read, and the primary was not allowed to: `NoReplicaAvailable` is raised."""

    by: typing.Literal["primary_reads", "primary_fallback_limit"]
    """The setting that keeps the read off the primary."""
    group: str | None = None
    """The group of the read; None for the default, and where `primary_fallback_limit` refuses it."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Ejected(Event):
    """A server was ejected."""

    server: str
    by: typing.Literal["session", "probe"]
    """What detected the failure: a unit of work, or the monitor."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Returned(Event):
    """An ejected server is used again: its probes succeed, or the ejection has expired."""

    server: str


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class PrimaryChanged(Event):
    """Another server is the primary now, or another timeline began at the same address."""

    former: str
    primary: str


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class TokenReceived(Event):
    """A request carried a consistency token."""

    outcome: TokenOutcome


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class TokenSent(Event):
    """A request has written, and its response carries a consistency token, or should have."""

    outcome: typing.Literal["sent", "too_late"]
    """`too_late`: the write came after the response had begun."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class PoolUse:
    """The use of one pool."""

    server: str
    pool: typing.Literal["primary", "replica"]
    """Which of the server's pools: the one of the primary, which follows it, or the one that reads as a replica."""
    in_use: int
    capacity: int
    """The limit of its connections, overflow included."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class SnapshotPublished(Event):
    """The monitor has published a snapshot; after each probe."""

    snapshot: Snapshot | None
    """None when the monitor stopped."""
    pools: tuple[PoolUse, ...] = ()


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Shadowed(Event):
    """In shadow mode, a read was decided; it runs on the primary whatever the decision."""

    server: str | None
    """The replica it would have used; None when it would have used the primary."""
    stale: bool
    """Whether no replica was known to be fresh enough: the read would have waited for one."""
    endpoint: str = ""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class ShadowWrote(Event):
    """In shadow mode, a unit of work that was declared to read wrote: on a replica it would have escalated."""

    statement: str
    """The kind of statement, such as `UPDATE`."""
    endpoint: str = ""

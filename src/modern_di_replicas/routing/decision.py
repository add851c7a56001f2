"""The server of a unit of work, and the reason, as a value for tests, people and metrics."""

import dataclasses
import enum
import functools


PRIMARY = "primary"
"""The server of a decision for the primary, whichever host that is."""


class Cause(enum.Enum):
    """Why a unit of work runs where it does."""

    WRITE = "write"
    """Its intent is to write."""
    REPLICA = "replica"
    """Its intent is to read, and a replica serves it."""
    STRONG = "strong"
    """The read has to include everything that is committed."""
    POSITION_UNKNOWN = "position_unknown"
    """Its client has written, and the position of that write is unknown."""
    NOT_FRESH = "not_fresh"
    """No replica is fresh enough for the read."""
    NO_REPLICAS = "no_replicas"
    """The settings declare no replicas."""
    NO_REPLICA_SERVES = "no_replica_serves"
    """Every replica of the group is down, too far behind, or ejected."""
    DISABLED = "disabled"
    """The settings say `enabled=False`."""
    NOT_SHARED = "not_shared"
    """The read is outside the `replica_share` of the settings."""
    SHADOW = "shadow"
    """The settings say `shadow=True`: choices are made and counted, and everything uses the primary."""
    CHOSEN = "chosen"
    """The application has chosen the engine or connection itself."""

    # After an escalation:
    WROTE = "wrote"
    """A unit of work that reads from a replica wrote."""
    USE_PRIMARY = "use_primary"
    """A statement asked for the primary."""
    NEEDS_TRANSACTION = "needs_transaction"
    """A statement or a session needs its own transaction, connection or isolation."""
    REPLICA_FAILED = "replica_failed"
    """The replica refused, cancelled or lost a statement, or went down before the first one."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Decision:
    """The server a unit of work uses."""

    server: str
    """The name of the server: `primary`, or the name of a replica."""
    cause: Cause
    """Why this server was chosen."""
    reason: str
    """The cause in words for people, with the origin of the intent."""


def decision_of(engine: object) -> Decision:
    """Return the decision of an engine; a default for an engine that a test has put in its place."""
    decision = getattr(engine, "decision", None)
    return decision if isinstance(decision, Decision) else on_primary(Cause.CHOSEN, "chosen by the application")


def on_primary(cause: Cause, reason: str) -> Decision:
    """Return the decision for the primary."""
    return Decision(server=PRIMARY, cause=cause, reason=reason)


@functools.lru_cache(maxsize=1024)
def on_replica(server: str, reason: str) -> Decision:
    """Return the decision for a replica; most units of work share a few of them."""
    return Decision(server=server, cause=Cause.REPLICA, reason=reason)

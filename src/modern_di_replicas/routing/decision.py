"""Where a unit of work runs, and why. A value: tests assert on it, people read it."""

import dataclasses


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Decision:
    """The server a unit of work uses."""

    server: str
    """The name of the server: `primary`, or the name of a replica."""
    reason: str
    """Why this one, in words for people."""

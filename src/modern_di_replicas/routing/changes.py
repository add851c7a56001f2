"""Detect changes between snapshots."""

import dataclasses

from modern_di_replicas.routing.snapshot import Snapshot


@dataclasses.dataclass(kw_only=True, slots=True)
class LastPrimary:
    """Remembers the last primary, also over snapshots without one."""

    name: str | None = None
    timeline: int | None = None

    def follow(self, snapshot: Snapshot) -> str | None:
        """Apply a snapshot; return the name of the former primary if it has changed.

        A new timeline at the same address is a change as well.
        """
        name = snapshot.primary
        if name is None:
            return None
        former, before = self.name, self.timeline
        self.name, self.timeline = name, snapshot.servers[name].timeline
        return former if former is not None and (former, before) != (self.name, self.timeline) else None

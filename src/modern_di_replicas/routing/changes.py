"""What changed from one snapshot to the next."""

import dataclasses

from modern_di_replicas.routing.snapshot import Snapshot


@dataclasses.dataclass(kw_only=True, slots=True)
class LastPrimary:
    """Remembers the primary over snapshots in which there is none."""

    name: str | None = None
    timeline: int | None = None

    def follow(self, snapshot: Snapshot) -> str | None:
        """Take over a snapshot; return the name of the former primary if another leads now.

        At the same address another server leads when the timeline is another one.
        """
        name = snapshot.primary
        if name is None:
            return None
        former, before = self.name, self.timeline
        self.name, self.timeline = name, snapshot.servers[name].timeline
        return former if former is not None and (former, before) != (self.name, self.timeline) else None

"""Detect a new history at the known addresses: another cluster, or a restored backup. Pure."""

import collections.abc
import dataclasses

from modern_di_replicas.routing.snapshot import Observation, find_primary


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class History:
    """The history that the servers share: one PostgreSQL cluster, on its newest timeline."""

    system: int
    """The identity of the PostgreSQL cluster."""
    timeline: int
    """The newest timeline of its servers."""

    def includes(self, seen: Observation) -> bool:
        """Return whether a server is in this history, or continues it after a promotion."""
        return seen.system == self.system and seen.timeline >= self.timeline


def find_successor(
    observed: collections.abc.Mapping[str, Observation],
    *,
    history: History,
    declared: str,
    newest: collections.abc.Mapping[str, int],
    not_promotable: collections.abc.Container[str] = (),
) -> str | None:
    """Return the primary of another history to follow; None when there is none, or it is unknown.

    Call it only when no primary of `history` has answered for long enough.

    Another PostgreSQL cluster is accepted at the address of the declared primary; elsewhere only if no server of the
    known cluster answers. An older timeline of the same cluster is usually that of a former primary; it is accepted
    only as a restored backup: the newest timeline has no server left, and a server that was on it has gone back.

    Args:
        observed: the last answers of the servers that are up.
        history: the known history, whose primary is lost.
        declared: the name of the declared primary.
        newest: the newest timeline of each server in this history.
        not_promotable: servers that writes never follow, and whose timelines do not count.

    """
    counted = {name: seen for name, seen in observed.items() if name not in not_promotable}
    at_declared = observed.get(declared)
    if at_declared is not None and at_declared.system != history.system:
        return _primary_of(counted, at_declared.system, declared=declared)
    if not any(seen.system == history.system for seen in observed.values()):
        systems = {seen.system for seen in counted.values()}
        return _primary_of(counted, systems.pop(), declared=declared) if len(systems) == 1 else None
    if any(history.includes(seen) for seen in counted.values()):
        return None
    has_gone_back = any(
        newest.get(name, 0) == history.timeline for name, seen in counted.items() if seen.system == history.system
    )
    return _primary_of(counted, history.system, declared=declared) if has_gone_back else None


def _primary_of(observed: collections.abc.Mapping[str, Observation], system: int, *, declared: str) -> str | None:
    theirs = {name: seen for name, seen in observed.items() if seen.system == system}
    return find_primary(theirs, current=declared, timeline=0)

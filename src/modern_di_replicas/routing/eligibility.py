"""Find the servers that may serve reads. Pure: takes a snapshot, returns the servers of each group."""

import collections.abc
import typing

from modern_di_replicas.routing.snapshot import Role, ServerState, Snapshot


class DeclaredServer(typing.Protocol):
    """The declaration of a server."""

    @property
    def name(self) -> str: ...
    @property
    def groups(self) -> collections.abc.Set[str]: ...
    @property
    def max_lag(self) -> float | None:
        """The highest lag in seconds; None for any."""


ServerT = typing.TypeVar("ServerT", bound=DeclaredServer)


def eligible(servers: collections.abc.Iterable[ServerT], snapshot: Snapshot) -> dict[str, tuple[ServerT, ...]]:
    """Return the servers that may serve the reads of each group: standbys that are up and fresh enough.

    The primary by another name serves if no standby does, because it is declared as a replica.
    """
    groups: dict[str, tuple[ServerT, ...]] = {}
    by_group: dict[str, list[ServerT]] = {}
    for server in servers:
        for group in server.groups:
            by_group.setdefault(group, []).append(server)
    for group, members in by_group.items():
        standbys = tuple(member for member in members if _serves(member, snapshot))
        aliases = (member for member in members if snapshot.servers[member.name].role is Role.ALIAS)
        groups[group] = standbys or tuple(aliases)
    return groups


def _serves(server: DeclaredServer, snapshot: Snapshot) -> bool:
    state = snapshot.servers[server.name]
    return state.up and state.role is Role.STANDBY and _fresh(state, server.max_lag)


def _fresh(state: ServerState, max_lag: float | None) -> bool:
    if max_lag is None or state.lag_unknown_since is not None:
        return True  # no limit; or no primary to compare with, when stale data is better than none
    return state.lag_seconds is not None and state.lag_seconds <= max_lag

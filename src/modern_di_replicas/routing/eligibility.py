"""Which servers may serve reads. Pure: the snapshot in, the servers of each group out."""

import collections.abc
import typing

from modern_di_replicas.routing.snapshot import Role, ServerState, Snapshot


class DeclaredServer(typing.Protocol):
    """What is declared of a server."""

    @property
    def name(self) -> str: ...
    @property
    def groups(self) -> collections.abc.Set[str]: ...
    @property
    def max_lag(self) -> float | None:
        """How many seconds it may be behind; None for any."""


ServerT = typing.TypeVar("ServerT", bound=DeclaredServer)


def eligible(servers: collections.abc.Iterable[ServerT], snapshot: Snapshot) -> dict[str, tuple[ServerT, ...]]:
    """Return the servers that may serve the reads of each group: standbys that are up and fresh enough.

    The primary by another name serves where no standby does: it was declared to be read from.
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
        return True  # no limit; or no primary to compare with, and then an old answer is better than none
    return state.lag_seconds is not None and state.lag_seconds <= max_lag

"""The facts about the servers, which the checks of the doctor read. Pure."""

import collections.abc
import dataclasses
import typing


DeclaredRole = typing.Literal["primary", "replica"]
Pooling = typing.Literal["none", "session", "transaction"]


@dataclasses.dataclass(kw_only=True, slots=True)
class Slot:
    """A physical replication slot of a server."""

    name: str
    active: bool
    wal_status: str
    retained: int
    """The number of bytes of WAL that it retains."""


@dataclasses.dataclass(kw_only=True, slots=True)
class Facts:
    """The answers of one server. None stands for a missing answer; `errors` says why."""

    name: str
    declared: DeclaredRole
    host: str = ""
    is_declared_pooled: bool = False
    max_lag: float | None = None
    """The highest lag in seconds with which it serves reads."""
    unreachable: str = ""
    """Why it could not be reached; empty when it could."""
    errors: dict[str, str] = dataclasses.field(default_factory=dict)
    """The failed queries, and their errors."""

    in_recovery: bool | None = None
    system: int | None = None
    database: str | None = None
    started: str | None = None
    version: str | None = None
    timeline: int | None = None
    reports_standby: bool | None = None
    """The parameter `in_hot_standby`, as reported by the server or a pooler."""
    clock_offset: float | None = None
    """By how many seconds its clock is ahead of this machine's."""
    behind: int | None = None
    """Its lag behind the primary in bytes of WAL, after a wait."""
    waited: float = 0.0
    """The length of that wait in seconds."""
    replay_paused: bool | None = None
    settings: collections.abc.Mapping[str, str] = dataclasses.field(default_factory=dict)
    slots: list[Slot] | None = None
    uses_slot: bool | None = None
    """Whether its WAL receiver has a slot on its primary."""
    sees_statistics: bool | None = None
    """Whether its user may read the activity of others, as pg_monitor may."""
    is_encrypted: bool | None = None
    is_local: bool | None = None
    """Whether the connection does not leave the machine."""
    pooling: Pooling | None = None
    prepared_statements: str = ""
    """The error of the driver's prepared statements; empty when they work."""
    connections: int | None = None
    """The number of connections of other clients."""
    role_limit: int | None = None
    """The connection limit of its user; -1 for no limit."""

    def number(self, setting: str) -> int:
        """Return a numeric setting, in the unit of `pg_settings`; 0 if the server does not have it."""
        return int(self.settings.get(setting, "0"))


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Pools:
    """The connections that the application may open."""

    workers: int
    """The number of its processes."""
    primary: int
    """The connections of the primary's pool in one process, overflow included."""
    replica: int
    """The connections of one replica's pool."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Examination:
    """The answers of all servers, and the pools of the application."""

    servers: tuple[Facts, ...]
    pools: Pools

    @property
    def primary(self) -> Facts:
        """The server that is declared as the primary."""
        return next(server for server in self.servers if server.declared == "primary")

    @property
    def replicas(self) -> tuple[Facts, ...]:
        return tuple(server for server in self.servers if server.declared == "replica")

"""What the doctor learns of the servers: the facts its checks read. Pure."""

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
    """How many bytes of WAL it keeps."""


@dataclasses.dataclass(kw_only=True, slots=True)
class Facts:
    """What one server said. None stands for what it did not say; `errors` says why."""

    name: str
    declared: DeclaredRole
    host: str = ""
    is_declared_pooled: bool = False
    max_lag: float | None = None
    """How many seconds it may be behind to serve reads."""
    unreachable: str = ""
    """Why it could not be reached; empty when it could."""
    errors: dict[str, str] = dataclasses.field(default_factory=dict)
    """Which questions failed, and how."""

    in_recovery: bool | None = None
    system: int | None = None
    database: str | None = None
    started: str | None = None
    version: str | None = None
    timeline: int | None = None
    reports_standby: bool | None = None
    """What `in_hot_standby` says, which the server, or whatever stands between, reports by itself."""
    clock_offset: float | None = None
    """By how many seconds its clock is ahead of this machine's."""
    behind: int | None = None
    """How many bytes of WAL it had not replayed of what the primary had written, after a wait."""
    waited: float = 0.0
    """How many seconds it had for that."""
    replay_paused: bool | None = None
    settings: collections.abc.Mapping[str, str] = dataclasses.field(default_factory=dict)
    slots: list[Slot] | None = None
    uses_slot: bool | None = None
    """Whether its WAL receiver has a slot on its primary."""
    sees_statistics: bool | None = None
    """Whether its user may read what others do, as pg_monitor may."""
    is_encrypted: bool | None = None
    is_local: bool | None = None
    """Whether the connection does not leave the machine."""
    pooling: Pooling | None = None
    prepared_statements: str = ""
    """How the driver's prepared statements fail; empty when they work."""
    connections: int | None = None
    """How many clients of others it has."""
    role_limit: int | None = None
    """How many connections its user may have; -1 for any number."""

    def number(self, setting: str) -> int:
        """Return a setting that is a number, in the unit of `pg_settings`; 0 where the server does not have it."""
        return int(self.settings.get(setting, "0"))


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Pools:
    """How many connections the application may open."""

    workers: int
    """How many processes run it."""
    primary: int
    """The connections of the primary's pool in one process, overflow included."""
    replica: int
    """Those of one replica's pool."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Examination:
    """What all servers said, and what the application asks of them."""

    servers: tuple[Facts, ...]
    pools: Pools

    @property
    def primary(self) -> Facts:
        """The server that is declared as the primary."""
        return next(server for server in self.servers if server.declared == "primary")

    @property
    def replicas(self) -> tuple[Facts, ...]:
        return tuple(server for server in self.servers if server.declared == "replica")

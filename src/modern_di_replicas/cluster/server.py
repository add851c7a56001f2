"""One server of the topology."""

import collections.abc
import dataclasses
import typing

from sqlalchemy import make_url

from modern_di_replicas.cluster.health import Health
from modern_di_replicas.cluster.pools.replaceable import ReplaceableQueuePool
from modern_di_replicas.servers import Replica


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Server:
    """One server as a replica: its engine, and its declaration."""

    name: str
    declared: Replica
    engine: typing.Any
    """A `OneReplicaEngine` of either half."""
    health: Health
    weight: int
    groups: collections.abc.Set[str]
    max_lag: float | None
    capacity: int
    """The limit of its pool."""
    is_declared_primary: bool = False
    """Whether it is the server that was declared as the primary: it serves reads once it is a standby."""

    @property
    def url(self) -> str:
        return self.declared.url

    @property
    def probed_host(self) -> str:
        """Where the monitor asks; empty where the URL gives no single host."""
        return make_url(self.declared.probe_url or self.declared.url).host or ""

    @property
    def pool(self) -> ReplaceableQueuePool:
        pool: ReplaceableQueuePool = self.engine.sync_engine.pool
        return pool

    @property
    def in_use(self) -> int:
        """How many of its connections are in use or waited for; balancers compare it."""
        pool: ReplaceableQueuePool = self.engine.sync_engine.pool
        return pool.in_use + pool.waiting

    @property
    def has_room(self) -> bool:
        return self.in_use < self.capacity

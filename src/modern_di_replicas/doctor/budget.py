"""Compare the connections that the application may open on each server with those that the server has for it."""

import collections.abc
import dataclasses

from modern_di_replicas.doctor.facts import Examination, Facts, Pools


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Budget:
    """The connections of one server."""

    server: str
    needed: int
    available: int
    arithmetic: str
    """The comparison in one line."""

    @property
    def fits(self) -> bool:
        return self.needed <= self.available


def budgets(examination: Examination) -> collections.abc.Iterator[Budget]:
    """Yield the budget of each server whose limits are known; behind a pooler, its limits apply."""
    for server in examination.servers:
        if server.number("max_connections") and server.pooling in ("none", None):
            yield _budget(server, examination.pools)


def _budget(server: Facts, pools: Pools) -> Budget:
    # After a failover a replica has the pool of the primary, and the primary may serve reads as a replica.
    pool = pools.primary if server.declared == "primary" else max(pools.primary, pools.replica)
    needed = pools.workers * (pool + 1)
    reserved = server.number("superuser_reserved_connections") + server.number("reserved_connections")
    others = server.connections or 0
    available = server.number("max_connections") - reserved - others
    in_use = f" - {others} in use by others" if others else ""
    words = f"{server.settings['max_connections']} - {reserved} reserved{in_use} = {available}"
    if server.role_limit is not None and 0 <= server.role_limit < available:
        available = server.role_limit
        words = f"{available}, the CONNECTION LIMIT of its role"
    workers = "worker" if pools.workers == 1 else "workers"
    return Budget(
        server=server.name,
        needed=needed,
        available=available,
        arithmetic=f"{pools.workers} {workers} x ({pool} + 1) = {needed}, of {words}",
    )

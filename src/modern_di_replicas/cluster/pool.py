"""One pool in front of the pools of all replicas."""

import typing

from sqlalchemy import Pool, PoolProxiedConnection, QueuePool

from modern_di_replicas.cluster.fleet import Fleet


def in_use(pool: Pool) -> int:
    """Return the number of connections of a pool that are checked out; 0 for a pool that does not count them."""
    return pool.checkedout() if isinstance(pool, QueuePool) else 0


class FleetPool(Pool):
    """A pool that owns no connections: each checkout comes from the pool of the server the fleet chooses."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(self._no_creator)
        self._fleet = fleet
        self._dialect_is_initialized = False

    def connect(self) -> PoolProxiedConnection:
        connection = self._fleet.choose().sync_engine.raw_connection()
        if not self._dialect_is_initialized:
            # The engine in front of this pool has a dialect of its own, which learns the server's version
            # and sets up its codecs on the first "connect" event of its pool.
            self.dispatch.connect(connection.dbapi_connection, None)
            self._dialect_is_initialized = True
        return connection

    def recreate(self) -> "FleetPool":
        return FleetPool(self._fleet)

    def dispose(self) -> None:
        """Do nothing: the servers' own pools have the connections, and `ReplicaEngine.dispose` disposes them."""

    def status(self) -> str:
        return "; ".join(f"{member.name}: {member.engine.pool.status()}" for member in self._fleet.members)

    def checkedout(self) -> int:
        """Return the number of connections in use, over all servers."""
        return sum(in_use(member.engine.pool) for member in self._fleet.members)

    @staticmethod
    def _no_creator() -> typing.NoReturn:
        msg = "a FleetPool makes no connections of its own"
        raise AssertionError(msg)  # pragma: no cover  # connect() never asks for it

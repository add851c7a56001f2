"""One pool in front of the pools of all replicas."""

import typing

from sqlalchemy import Pool, PoolProxiedConnection

from modern_di_replicas.cluster.failures import Failure, classify
from modern_di_replicas.cluster.fleet import Fleet, Member


class FleetPool(Pool):
    """A pool that owns no connections: each checkout comes from the pool of the server the fleet chooses.

    A replica that cannot be reached is rested, and the next one is asked; the primary in the end.
    """

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(self._no_creator)
        self._fleet = fleet
        self._dialect_is_initialized = False

    def connect(self) -> PoolProxiedConnection:
        connection = self._checkout()
        if not self._dialect_is_initialized:
            # The engine in front of this pool has a dialect of its own, which learns the server's version
            # and sets up its codecs on the first "connect" event of its pool.
            self.dispatch.connect(connection.dbapi_connection, None)
            self._dialect_is_initialized = True
        return connection

    def _checkout(self) -> PoolProxiedConnection:
        for _ in self._fleet.members:
            member = self._fleet.choose_member()
            if member is None:
                break
            try:
                return member.engine.sync_engine.raw_connection()
            except Exception as error:
                if not self._passes_over(member, error):
                    raise
        return self._fleet.without_replica(None).sync_engine.raw_connection()

    @staticmethod
    def _passes_over(member: Member, error: Exception) -> bool:
        failure = classify(error)
        if failure is Failure.DOWN:
            member.health.failed()
        return failure in (Failure.DOWN, Failure.REFUSED)

    def recreate(self) -> "FleetPool":
        return FleetPool(self._fleet)

    def dispose(self) -> None:
        """Do nothing: the servers' own pools have the connections, and `ReplicaEngine.dispose` disposes them."""

    def status(self) -> str:
        return "; ".join(f"{member.name}: {member.engine.pool.status()}" for member in self._fleet.members)

    def checkedout(self) -> int:
        """Return the number of connections in use, over all servers."""
        return sum(member.in_use for member in self._fleet.members)

    @staticmethod
    def _no_creator() -> typing.NoReturn:  # pragma: no cover  # connect() never asks for it
        msg = "a FleetPool makes no connections of its own"
        raise AssertionError(msg)

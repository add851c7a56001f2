"""One pool in front of the pools of all replicas."""

import asyncio
import collections.abc
import typing

from sqlalchemy import Engine, Pool, PoolProxiedConnection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from modern_di_replicas.cluster.engines.either import AnyEngine, sync_of
from modern_di_replicas.cluster.failures import MAX_CONNECTS, Failure, classify, note_checkout_failure
from modern_di_replicas.cluster.listeners import on_listen
from modern_di_replicas.cluster.pools.replaceable import ReplaceablePool
from modern_di_replicas.cluster.server import Server
from modern_di_replicas.cluster.topology import Topology
from modern_di_replicas.intent import is_primary_declared
from modern_di_replicas.routing.decision import Cause


class AllReplicasPool(Pool):
    """A pool that owns no connections: each checkout comes from the pool of a server that the topology chooses.

    A replica that cannot be reached is ejected, and the next one is tried; the primary is the last.
    """

    _sqla_logger_namespace = ReplaceablePool._sqla_logger_namespace  # noqa: SLF001  # of a class of ours

    def __init__(self, topology: Topology) -> None:
        super().__init__(self._no_creator)
        self._topology = topology
        self._initialize_dialect: collections.abc.Callable[..., None] | None = None
        self._is_disposed = False
        on_listen(self, self._note_first_connect)

    def _note_first_connect(self, key: typing.Any, options: object) -> None:  # noqa: ANN401, ARG002  # see `on_listen`
        # On the first "connect" event, a listener of `create_engine` with this name asks the server for its version.
        if self._initialize_dialect is None and getattr(key.fn, "__name__", "") == "first_connect":
            self._initialize_dialect = key.fn

    def connect(self) -> PoolProxiedConnection:
        connection = self._checkout()
        if (initialize := self._initialize_dialect) is not None:
            # The engine of this pool has its own dialect. All other listeners are called by the pool that owns the
            # connection. The second argument replaces the record, which is not public; only its driver connection is
            # used.
            initialize(connection.dbapi_connection, connection)
            self._initialize_dialect = None
        return connection

    def _checkout(self) -> PoolProxiedConnection:
        kept = self._topology.kept_on_primary(None)
        if is_primary_declared():
            kept = (Cause.USE_PRIMARY, "use_primary()")
        if kept is not None:
            return _engine(self._topology.primary_for(*kept)).raw_connection()
        failed: set[str] = set()
        losses = 0
        while (server := self._topology.choose_server(without=failed)) is not None:
            try:
                return _engine(server.engine).raw_connection()
            except Exception as error:  # noqa: BLE001  # raised again where it is the application's
                losses += 1
                if not self._passes_over(server, error, losses=losses):
                    continue
                failed.add(server.name)
                losses = 0
        return _engine(self._topology.without_replica(None)).raw_connection()

    @staticmethod
    def _passes_over(server: Server, error: Exception, *, losses: int) -> bool:
        """Return whether to try another server after an error; raise the error if it is the application's."""
        note_checkout_failure(error, _engine(server.engine))
        failure = classify(error)
        if failure is Failure.OWN:
            raise error
        if failure is Failure.LOST and losses < MAX_CONNECTS:
            return False
        if failure is not Failure.TRANSIENT:
            server.health.failed(error)
        return True

    # An engine that is disposed calls `dispose` to close the connections, and `recreate` in any case.

    def dispose(self) -> None:
        """Close the pooled connections of every replica."""
        engines = [server.engine for server in self._topology.servers]
        if in_greenlet() and (asynchronous := [engine for engine in engines if isinstance(engine, AsyncEngine)]):
            await_only(_closed(asynchronous))
        else:
            for engine in engines:
                _engine(engine).dispose()
        self._is_disposed = True

    def recreate(self) -> "AllReplicasPool":
        """Replace the pools of every replica, and return this one, because its engine's listeners stay."""
        if not self._is_disposed:
            for server in self._topology.servers:
                _engine(server.engine).dispose(close=False)
        self._is_disposed = False
        return self

    def status(self) -> str:
        return "; ".join(f"{server.name}: {server.engine.pool.status()}" for server in self._topology.servers)

    def checkedout(self) -> int:
        """Return the number of connections in use, over all servers."""
        return sum(server.pool.in_use for server in self._topology.servers)

    @staticmethod
    def _no_creator() -> typing.NoReturn:  # pragma: no cover  # connect() never asks for it
        msg = "an AllReplicasPool opens no connections itself"
        raise AssertionError(msg)


async def _closed(engines: list[AsyncEngine]) -> None:
    await asyncio.gather(*(engine.dispose() for engine in engines))


def _engine(engine: AnyEngine) -> Engine:
    return typing.cast(Engine, sync_of(engine))

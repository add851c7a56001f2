"""The pool in front of the pools of all replicas."""

import typing

import pytest
from sqlalchemy import event, text
from sqlalchemy.util import greenlet_spawn

from modern_di_replicas.cluster.failures import Failure, note_failure
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import serving


async def test_a_connection_that_is_lost_while_it_is_made_is_made_again(replicated_cluster: LocalCluster) -> None:
    """As for any connection, the loss says nothing about the server, which stays in use."""
    replica = replicated_cluster.replicas[0]
    async with serving(replicated_cluster, replicas=[replica.url]) as servers:
        engine = servers.replica.engines[f"127.0.0.1:{replica.port}"].sync_engine
        lost: list[Exception] = []

        def lose(*_: object) -> None:
            if len(lost) < 2:
                lost.append(ConnectionResetError())
                note_failure(lost[-1], Failure.LOST)
                raise lost[-1]

        event.listen(engine, "do_connect", lose, insert=True)
        async with servers.replica.connect() as connection:
            assert await connection.scalar(text("SELECT inet_server_port()")) == replica.port
        assert len(lost) == 2
        assert [server.health.is_down for server in servers.replica.topology.servers] == [False, False]


@pytest.mark.parametrize("close", [True, False])
async def test_the_synchronous_engine_disposes_the_pools_of_all_replicas(
    replicated_cluster: LocalCluster, *, close: bool
) -> None:
    """INVARIANT: SQLAlchemy documents `dispose(close=False)` on it for a forked process; libraries call it too."""
    async with serving(replicated_cluster) as servers:

        async def processes() -> set[object]:
            found = set()
            for _ in range(4):
                async with servers.replica.connect() as connection:
                    found.add(await connection.scalar(text("SELECT pg_backend_pid()")))
            return found

        disposed: list[object] = []
        opened: list[typing.Any] = []
        event.listen(servers.replica.sync_engine, "engine_disposed", disposed.append)
        event.listen(servers.replica.sync_engine, "connect", lambda connection, _: opened.append(connection))
        before, pool = await processes(), servers.replica.pool
        async with servers.replica.connect() as used:
            await used.scalar(text("SELECT 1"))
            await greenlet_spawn(servers.replica.sync_engine.dispose, close=close)
        assert servers.replica.pool is pool, "it would have lost its listeners"
        assert disposed.count(servers.replica.sync_engine) == 1
        left = list(opened)
        assert await processes() & before == set()
        for connection in left:  # in a forked process these would be the parent's
            await greenlet_spawn(connection.close)

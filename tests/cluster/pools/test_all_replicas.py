"""The pool in front of the pools of all replicas."""

from sqlalchemy import event, text

from modern_di_replicas.cluster.failures import Failure, note_failure
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import serving


async def test_a_connection_that_is_lost_while_it_is_made_is_made_again(replicated_cluster: LocalCluster) -> None:
    """Like any other, it says nothing of its server, which stays in use."""
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

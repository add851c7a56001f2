"""The connections used for reads on a replica."""

import types
import typing

import pytest
import sqlalchemy.exc
from sqlalchemy import text

from modern_di_replicas import Replica
from modern_di_replicas.cluster.failures import Failure, classify
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import serving
from tests.unconnected import URL, engines


async def test_a_core_user_sees_that_a_rollback_failed(replicated_cluster: LocalCluster) -> None:
    """Only a session's failed rollback is suppressed, because it would hide the reason for the rollback."""
    async with serving(replicated_cluster, read_isolation="REPEATABLE READ") as servers:
        engine = next(iter(servers.replica.engines.values()))
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            raw = await connection.get_raw_connection()
            servers.settings.driver.terminate(raw.driver_connection)
            with pytest.raises(sqlalchemy.exc.DBAPIError):
                await connection.rollback()
            await connection.invalidate()


def test_an_error_on_a_connection_that_was_given_up_is_not_classified_again() -> None:
    """A listener may invalidate or close it while the error is handled, which removes the driver's connection."""
    _, replica = engines(Replica(URL.format("db-2"), "db-2"))
    one = next(server.engine for server in replica.topology.servers if server.name == "db-2")
    error = ConnectionResetError()
    for state in ({"closed": True, "invalidated": False}, {"closed": False, "invalidated": True}):
        context: typing.Any = types.SimpleNamespace(
            connection=types.SimpleNamespace(**state), original_exception=error, is_disconnect=False
        )
        one.reads._classify_error(context)  # noqa: SLF001  # SQLAlchemy calls it with such a connection only by chance
        assert classify(error) is Failure.OWN

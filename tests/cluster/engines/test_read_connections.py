"""The connections on which a replica is read."""

import pytest
import sqlalchemy.exc
from sqlalchemy import text

from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import serving


async def test_a_core_user_sees_that_a_rollback_failed(replicated_cluster: LocalCluster) -> None:
    """Only a session's failed rollback is hidden, because it would hide why the session rolls back."""
    async with serving(replicated_cluster, read_isolation="REPEATABLE READ") as servers:
        engine = next(iter(servers.replica.engines.values()))
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            raw = await connection.get_raw_connection()
            servers.settings.driver.terminate(raw.driver_connection)
            with pytest.raises(sqlalchemy.exc.DBAPIError):
                await connection.rollback()
            await connection.invalidate()

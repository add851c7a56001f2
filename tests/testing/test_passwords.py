"""The superuser's password in PostgreSQL's format."""

import asyncpg
import pytest

from modern_di_replicas.testing import LocalCluster
from modern_di_replicas.testing.passwords import stored


def test_each_secret_has_its_own_salt() -> None:
    """The secret does not contain the password."""
    first, second = stored("s3cret"), stored("s3cret")
    assert first != second
    assert "s3cret" not in first


async def test_a_secret_of_ours_is_taken_and_lets_its_password_in(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: and no other password; it uses a single iteration, to make the connections of tests faster."""
    primary = replicated_cluster.primary
    assert primary.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'").startswith(
        "SCRAM-SHA-256$1:"
    )
    primary.execute(f"CREATE ROLE passer LOGIN PASSWORD '{stored('right')}'")
    try:
        dsn = f"postgresql://passer:{{}}@127.0.0.1:{primary.port}/postgres"
        await (await asyncpg.connect(dsn.format("right"))).close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(dsn.format("wrong"))
    finally:
        primary.execute("DROP ROLE passer")

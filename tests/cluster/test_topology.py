"""The servers of a cluster, and the server for reads that no replica can serve."""

import typing

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from modern_di_replicas import PrimaryEngine, ReplicationSettings
from modern_di_replicas.cluster.engines.create import create_replica_engine
from modern_di_replicas.testing import LocalCluster


async def test_any_engine_may_stand_for_the_primary(replicated_cluster: LocalCluster) -> None:
    """A test may replace it by its own engine: it carries no decision, and reads use it directly."""
    own = create_async_engine(replicated_cluster.primary.url)
    settings = ReplicationSettings(primary=replicated_cluster.primary.url)
    replicas = create_replica_engine(settings, typing.cast(PrimaryEngine, own))

    chosen = replicas.choose()

    assert chosen is own
    async with chosen.connect() as connection:
        assert not await connection.scalar(text("SELECT pg_is_in_recovery()"))
    await own.dispose()

"""The servers of one cluster, and where reads go that no replica serves."""

import typing

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from modern_di_replicas import PrimaryEngine, ReplicationSettings
from modern_di_replicas.cluster.engines.create import create_replica_engine
from modern_di_replicas.testing import LocalCluster


async def test_any_engine_may_stand_for_the_primary(replicated_cluster: LocalCluster) -> None:
    """A test may put one of its own in its place: it carries no decision, and reads use it as it is."""
    own = create_async_engine(replicated_cluster.primary.url)
    settings = ReplicationSettings(primary=replicated_cluster.primary.url)
    replicas = create_replica_engine(settings, typing.cast(PrimaryEngine, own))

    chosen = replicas.choose()

    assert chosen is own
    async with chosen.connect() as connection:
        assert not await connection.scalar(text("SELECT pg_is_in_recovery()"))
    await own.dispose()

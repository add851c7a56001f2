"""Checks of new connections: the server must still have its expected role."""

import collections.abc
import contextlib
import math

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from modern_di_replicas.cluster.failures import Failure, classify
from modern_di_replicas.cluster.pools.connection_checks import refuse_regressed, refuse_standbys
from modern_di_replicas.errors import PrimaryUnavailable
from modern_di_replicas.testing import LocalCluster, LocalServer


@contextlib.asynccontextmanager
async def engine_of(server: LocalServer) -> collections.abc.AsyncIterator[AsyncEngine]:
    engine = create_async_engine(server.url)
    yield engine
    await engine.dispose()


async def answers(engine: AsyncEngine) -> bool:
    async with engine.connect() as connection:
        return bool(await connection.scalar(text("SELECT true")))


@pytest.mark.parametrize("always_ask", [False, True])
async def test_a_standby_is_refused_as_a_primary(replicated_cluster: LocalCluster, always_ask: bool) -> None:
    """By its reported role, which is then verified; or by a query, because a pooler may repeat an old report."""
    async with engine_of(replicated_cluster.primary) as primary, engine_of(replicated_cluster.replicas[0]) as standby:
        for engine in (primary, standby):
            refuse_standbys(engine.sync_engine, always_ask=always_ask)
        assert await answers(primary)
        with pytest.raises(PrimaryUnavailable, match="standby"):
            await answers(standby)


@pytest.mark.parametrize("furthest", [0, 1])
async def test_a_standby_at_its_former_position_is_accepted(replicated_cluster: LocalCluster, furthest: int) -> None:
    """Without a known position it is not queried."""
    async with engine_of(replicated_cluster.replicas[0]) as engine:
        refuse_regressed(engine.sync_engine, lambda: furthest)
        assert await answers(engine)


async def test_a_standby_behind_its_former_position_is_down(replicated_cluster: LocalCluster) -> None:
    """After a crash it accepts readers before it has replayed its former position again."""
    async with engine_of(replicated_cluster.replicas[0]) as engine:
        refuse_regressed(engine.sync_engine, lambda: math.inf)
        with pytest.raises(ConnectionResetError, match="restarted") as caught:
            await answers(engine)
    assert classify(caught.value) is Failure.DOWN


async def test_a_primary_is_accepted_as_a_replica(replicated_cluster: LocalCluster) -> None:
    """For example right after a promotion; the monitor detects it."""
    async with engine_of(replicated_cluster.primary) as engine:
        refuse_regressed(engine.sync_engine, lambda: math.inf)
        assert await answers(engine)

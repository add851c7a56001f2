"""A session that leaves its replica, or returns its connections."""

import asyncio

import pytest
from sqlalchemy import event, text

from modern_di_replicas import SessionFactory
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import serving


async def test_a_unit_of_work_continues_on_the_replica_that_one_of_its_sessions_moved_to(
    shop_cluster: LocalCluster,
) -> None:
    """INVARIANT: a session opened later does not try the failed replica."""
    async with serving(shop_cluster, primary_reads=False) as servers, servers.session() as session:
        sessions = SessionFactory(session)
        failed = session.decision.server
        next(one for one in servers.replica.topology.servers if one.name == failed).health.declare_down()
        assert await session.scalar(text("SELECT 1")) == 1
        moved_to = session.decision.server
        assert moved_to != failed
        async with sessions() as later:
            assert await later.scalar(text("SELECT 1")) == 1
            assert later.decision.server == moved_to


async def test_a_session_that_is_cancelled_while_it_returns_its_connection_keeps_none(
    shop_cluster: LocalCluster,
) -> None:
    """INVARIANT: the connection returns to its pool at once, even if the rollback before that was cancelled."""
    async with serving(shop_cluster) as servers:
        session = servers.session()
        await session.execute(text("SELECT 1"))

        @event.listens_for(servers.replica.sync_engine, "reset")
        def _cancel(*_: object) -> None:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await session.close()
        assert servers.checked_out() == 0

"""Probes between the regular ones."""

import asyncio

import pytest
from sqlalchemy import text

from modern_di_replicas import Monitor, RoutedSession
from modern_di_replicas.testing import LocalCluster
from tests.cluster.monitoring.states import name, snapshot
from tests.session.conftest import serving


async def test_all_servers_are_asked_at_once_when_a_newer_timeline_is_seen(disposable_cluster: LocalCluster) -> None:
    """INVARIANT: the other states are from before the switchover; waiting for the next probes would fail requests.

    The regular probes are minutes apart here; the single probe is that of a read that must include a write.
    """
    former, promoted, standby = disposable_cluster.servers
    async with serving(disposable_cluster, probe_interval=120) as servers, Monitor(servers.replica) as monitor:
        async with RoutedSession(servers.primary) as session:
            await session.execute(text("SELECT 1"))
        await asyncio.to_thread(former.stop)
        await asyncio.to_thread(promoted.promote)
        await asyncio.to_thread(standby.follow, promoted)
        await asyncio.to_thread(former.follow, promoted)

        async with asyncio.timeout(30):
            await monitor.probe_now(name(standby))
            async with RoutedSession(servers.primary) as session:
                assert await session.scalar(text("SELECT inet_server_port()")) == promoted.port
            async with RoutedSession(servers.primary) as session:
                assert await session.scalar(text("SELECT inet_server_port()")) == promoted.port
        assert snapshot(servers).primary == name(promoted)


async def test_an_error_in_an_immediate_probe_is_logged_as_well(
    disposable_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It runs as a separate task, whose error would otherwise appear only when the task is collected, if at all."""
    async with serving(disposable_cluster, probe_interval=120) as servers, Monitor(servers.replica) as monitor:
        await asyncio.to_thread(disposable_cluster.replicas[0].promote)
        monkeypatch.setattr("modern_di_replicas.cluster.monitoring.conclusions.assemble", None)
        await monitor.probe_now(name(disposable_cluster.replicas[0]))
        assert "NoneType" in caplog.text

"""The routing of reads while replicas are rolled out gradually."""

import asyncio

import pytest
from sqlalchemy import text

from modern_di_replicas import STRONG, Cause, Intent, Monitor, RoutedSession, UnknownGroupError
from modern_di_replicas.consistency.client import Client, request_of
from modern_di_replicas.observability import Decided, Shadowed, ShadowWrote
from modern_di_replicas.testing import LocalCluster
from tests.observability.recorder import Recorder
from tests.session.conftest import Servers, create_shop, serving


IN_RECOVERY = text("SELECT pg_is_in_recovery()")


@pytest.fixture
def disposable_shop(disposable_cluster: LocalCluster) -> LocalCluster:
    """Yield a cluster with the shop schema, for tests that break servers."""
    asyncio.run(create_shop(disposable_cluster))
    return disposable_cluster


async def reads_on_replica(servers: Servers, intent: Intent | None = None) -> bool:
    async with RoutedSession(servers.replica, intent=intent or Intent.read()) as session:
        return bool(await session.scalar(IN_RECOVERY))


async def test_disabled_everything_is_on_the_primary(replicated_cluster: LocalCluster) -> None:
    """Includes Core on the engine of all replicas, and applies even with `primary_reads=False`."""
    async with serving(replicated_cluster, enabled=False, primary_reads=False) as servers:
        assert not await reads_on_replica(servers)
        assert servers.replica.choose().decision.cause is Cause.DISABLED  # type: ignore[attr-defined]  # ours has one
        async with servers.replica.connect() as connection:
            assert not await connection.scalar(IN_RECOVERY)


async def test_an_unknown_group_is_an_error_for_any_rollout(replicated_cluster: LocalCluster) -> None:
    """Otherwise it would be noticed only once the share is above zero."""
    async with serving(replicated_cluster, enabled=False) as servers:
        with pytest.raises(UnknownGroupError):
            servers.replica.choose("nowhere")


async def test_the_share_changes_while_the_application_runs(replicated_cluster: LocalCluster) -> None:
    """Each choice reads the current share."""
    share = 0.0
    async with serving(replicated_cluster, replica_share=lambda: share) as servers:
        assert not await reads_on_replica(servers)
        share = 1.0
        assert await reads_on_replica(servers)


async def test_keys_are_on_the_same_side_each_time(replicated_cluster: LocalCluster) -> None:
    """Some keys use the replicas, the others the primary."""
    async with serving(replicated_cluster, replica_share=0.5) as servers:
        intents = [Intent.read(affinity=str(number)) for number in range(20)]
        sides = [await reads_on_replica(servers, intent) for intent in intents]
        assert [await reads_on_replica(servers, intent) for intent in intents] == sides
        assert set(sides) == {True, False}


async def test_in_shadow_mode_choices_are_reported_and_everything_is_on_the_primary(
    disposable_shop: LocalCluster,
) -> None:
    """Counts reads that a replica would have served, stale reads, and writes in reads."""
    recorder = Recorder()
    (replica,) = disposable_shop.replicas[:1]
    async with (
        serving(disposable_shop, shadow=True, hooks=[recorder], replicas=[replica.url]) as servers,
        Monitor(servers.replica),
    ):
        assert not await reads_on_replica(servers)
        async with servers.replica.connect() as connection:
            assert not await connection.scalar(IN_RECOVERY)
        async with servers.session() as session:
            await session.execute(text("SELECT 1"))
            await session.execute(text("UPDATE item SET amount = amount WHERE id = 1"))
            await session.execute(text("DELETE FROM item WHERE id = -1"))
        replica.pause_replay()
        with request_of(Client(is_request=True)):
            async with servers.primary.begin() as connection:
                await connection.execute(text("UPDATE item SET amount = amount WHERE id = 1"))
            assert not await reads_on_replica(servers)
        replica.resume_replay()
        assert not await reads_on_replica(servers, Intent.read(consistency=STRONG))
    name = f"127.0.0.1:{replica.port}"
    assert [(one.server, one.stale) for one in recorder.of(Shadowed)] == [
        (name, False),
        (name, False),
        (None, True),
        (None, False),
    ]
    assert [(one.statement, one.endpoint) for one in recorder.of(ShadowWrote)] == [("UPDATE", "shop.show")]
    assert {one.decision.cause for one in recorder.of(Decided)} == {Cause.SHADOW}


async def test_shadow_mode_without_hooks_works(replicated_cluster: LocalCluster) -> None:
    """It only counts, and without hooks nothing is counted."""
    async with serving(replicated_cluster, shadow=True) as servers:
        assert not await reads_on_replica(servers)


async def test_in_shadow_mode_a_missing_replica_is_not_an_error(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: a mode that only counts must not fail a read that the primary serves."""
    recorder = Recorder()
    async with serving(replicated_cluster, shadow=True, primary_reads=False, hooks=[recorder]) as servers:
        for server in servers.replica.topology.servers:
            server.health.failed()
        assert not await reads_on_replica(servers)
    assert [one.server for one in recorder.of(Shadowed)] == [None]

"""Each metric changes as documented while real servers fail, and no label grows without bound."""

import asyncio
import collections.abc
import contextlib
import math
import os
import pathlib
import random
import subprocess
import sys
import textwrap
import typing

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy import text

from modern_di_replicas import Cause, ConfigurationError, Intent, Monitor, ServerState, Snapshot, choose_engine
from modern_di_replicas.consistency.client import Client, request_of
from modern_di_replicas.observability import (
    Escalated,
    PrometheusHook,
    ReadRefused,
    Returned,
    Shadowed,
    ShadowWrote,
    SnapshotPublished,
    TokenReceived,
    TokenSent,
)
from modern_di_replicas.testing import LocalCluster
from tests.asgi.application import BUILDERS, settings_of
from tests.asgi.conftest import create_stock
from tests.session.conftest import Servers, serving
from tests.waiting import until


def values(registry: CollectorRegistry, metric: str) -> dict[tuple[str, ...], float]:
    """Return the samples of a metric by the values of their labels."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == metric
    }


async def read(servers: Servers) -> None:
    async with servers.session() as session:
        await session.execute(text("SELECT 1"))


def name(server: typing.Any) -> str:
    return f"127.0.0.1:{server.port}"


async def test_each_metric_moves_as_documented_while_servers_fail(disposable_shop: LocalCluster) -> None:
    """One scenario: reads, an escalation, a lagging replica, a crash, a wait, a failover."""
    registry = CollectorRegistry()
    primary, first, second = disposable_shop.servers

    def value(metric: str, *labels: str) -> float | None:
        return values(registry, metric).get(labels)

    async with (
        serving(disposable_shop, hooks=[PrometheusHook(registry=registry)], probe_interval=0.05) as servers,
        Monitor(servers.replica),
    ):
        await read(servers)
        choose_engine(Intent.write(), servers.primary, servers.replica)
        assert value("db_read_route_total", "replica", "replica") == 1
        assert value("db_write_route_total") == 1
        assert [value("db_server_up", name(one)) for one in disposable_shop.servers] == [1, 1, 1]
        assert value("db_server_role", name(primary), "primary") == 1
        assert value("db_server_role", name(first), "standby") == 1
        assert value("db_server_role", name(first), "primary") == 0
        assert value("db_replication_lag_seconds", name(primary)) is None
        assert value("db_pool_size", name(first), "replica") == 15
        assert value("db_pool_size", name(primary), "primary") == 15

        async with servers.session() as session:
            await session.execute(text("UPDATE item SET amount = amount WHERE id = 1"))
            await until(lambda: value("db_pool_in_use", name(primary), "primary") == 1)
        assert value("db_escalations_total", "shop.show", "wrote") == 1

        await asyncio.to_thread(first.pause_replay)
        await asyncio.to_thread(primary.execute, "UPDATE item SET amount = amount")
        await until(lambda: (value("db_replication_lag_seconds", name(first)) or 0) > 0.2)
        assert (value("db_replication_lag_bytes", name(first)) or 0) > 1000
        await asyncio.to_thread(first.resume_replay)

        await asyncio.to_thread(second.stop, "immediate")
        await until(lambda: value("db_server_up", name(second)) == 0)
        assert value("db_replication_lag_seconds", name(second)) is None
        ejections = values(registry, "db_ejections_total")
        assert {server for server, _ in ejections} == {name(second)}
        assert sum(ejections.values()) == 1

        await asyncio.to_thread(first.pause_replay)
        with request_of(Client(is_request=True)):
            async with servers.primary.begin() as connection:
                await connection.execute(text("UPDATE item SET amount = amount WHERE id = 1"))
            await read(servers)
        await asyncio.to_thread(first.resume_replay)
        assert value("db_read_route_total", "primary", "not_fresh") == 1
        assert value("db_read_fallback_total", "not_fresh") == 1
        assert value("db_catch_up_wait_seconds_count", "primary") == 1

        assert value("db_failover_total") == 0
        await asyncio.to_thread(disposable_shop.catch_up)
        await asyncio.to_thread(primary.stop)
        await asyncio.to_thread(first.promote)
        await until(lambda: value("db_failover_total") == 1)
        await until(lambda: value("db_server_role", name(first), "primary") == 1)
    assert values(registry, "db_server_up") == {}, "what no monitor says is not said"


async def test_a_crash_that_a_session_meets_is_a_rerun_and_a_read_that_fell_back(disposable_shop: LocalCluster) -> None:
    """Without a monitor."""
    registry = CollectorRegistry()
    (replica,) = disposable_shop.replicas[:1]
    async with serving(disposable_shop, hooks=[PrometheusHook(registry=registry)], replicas=[replica.url]) as servers:
        await read(servers)
        await asyncio.to_thread(replica.stop, "immediate")
        await read(servers)
        await read(servers)
    reruns = values(registry, "db_reruns_total")
    assert reruns.keys() <= {("replica_failed", "replica", "failed"), ("replica_failed", "primary", "succeeded")}
    assert reruns["replica_failed", "primary", "succeeded"] == 1
    assert values(registry, "db_escalations_total") == {("shop.show", "replica_failed"): 1}
    assert values(registry, "db_read_fallback_total") == {("replica_failed",): 1, ("no_replica_serves",): 1}
    assert values(registry, "db_ejections_total") == {(name(replica), "session"): 1}


async def test_labels_stay_bounded_under_random_paths(disposable_cluster: LocalCluster) -> None:
    """An endpoint is the name of its handler, whatever path a client requests."""
    registry = CollectorRegistry()
    create_stock(disposable_cluster)
    application = BUILDERS["fastapi"](settings_of(disposable_cluster, hooks=[PrometheusHook(registry=registry)]), {})
    rng = random.Random(1)  # noqa: S311  # for paths

    def samples() -> int:
        return sum(len(family.samples) for family in registry.collect())

    async with application.running(), application.client() as client:

        async def visit(times: int) -> None:
            for _ in range(times):
                garbage = "".join(rng.choices("abcdefgh/%20", k=12))
                await client.get(f"/{garbage}")
                await client.get(f"/read?{garbage}", headers={"x-forwarded-for": garbage})
                with contextlib.suppress(Exception):
                    await client.post(f"/write/{garbage}")
                await client.get("/read", headers={"cookie": f"consistency-token={garbage}"})

        await visit(10)
        before = samples()
        await visit(20)
        assert samples() == before


def test_rare_events_are_counted_too() -> None:
    """Tokens, shadow mode, a failed re-run and a refused read."""
    registry = CollectorRegistry()
    hook = PrometheusHook(registry=registry)
    for event in (
        TokenReceived(outcome="forged"),
        TokenSent(outcome="too_late"),
        Shadowed(server="a", stale=False),
        Shadowed(server=None, stale=True),
        Shadowed(server=None, stale=False),
        ShadowWrote(statement="UPDATE"),
        ReadRefused(by="primary_reads", group="analytics"),
        Escalated(server="a", cause=Cause.WROTE, reason="UPDATE"),
    ):
        hook.on_event(event)
        hook.on_event(event)
    assert values(registry, "db_consistency_tokens_total") == {("in", "forged"): 2, ("out", "too_late"): 2}
    assert values(registry, "db_read_refused_total") == {("primary_reads",): 2}
    assert values(registry, "db_shadow_reads_total") == {
        ("replica",): 2,
        ("stale",): 2,
        ("primary",): 2,
        ("wrote",): 2,
    }


def test_an_uncounted_event_changes_nothing() -> None:
    """A server's return is visible in the gauges."""
    registry = CollectorRegistry()
    before = {family.name: len(family.samples) for family in registry.collect()}
    PrometheusHook(registry=registry).on_event(Returned(server="a"))
    assert before.items() <= {family.name: len(family.samples) for family in registry.collect()}.items()


def test_with_several_processes_an_unknown_lag_is_nan(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """A gauge in a file cannot be removed."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    registry = CollectorRegistry()
    hook = PrometheusHook(registry=registry)
    hook.on_event(SnapshotPublished(snapshot=Snapshot(servers={"a": ServerState(name="a", up=True)})))
    hook.on_event(SnapshotPublished(snapshot=None))
    assert math.isnan(values(registry, "db_replication_lag_seconds")["a",])
    assert values(registry, "db_server_up") == {("a",): 1.0}


def test_hooks_of_one_registry_share_their_metrics() -> None:
    """For several settings in one process, for example one per tenant, and for a recreated application."""
    registry = CollectorRegistry()
    for _ in range(2):
        PrometheusHook(registry=registry).on_event(TokenReceived(outcome="accepted"))
    assert values(registry, "db_consistency_tokens_total") == {("in", "accepted"): 2}


def test_the_registry_of_the_client_is_the_default() -> None:
    """Most applications expose it."""
    PrometheusHook()
    assert "db_failover" in {family.name for family in prometheus_client.REGISTRY.collect()}


def test_without_its_extra_the_hook_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its construction, not at the first event."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError) as caught:
        PrometheusHook()
    assert "modern-di-replicas[prometheus]" in caught.value.remedy


WORKER = textwrap.dedent(
    """
    import asyncio, sys
    from sqlalchemy import text
    from modern_di_replicas import *
    from modern_di_replicas.cluster.engines.create import create_primary_engine, create_replica_engine
    from modern_di_replicas.observability import PrometheusHook

    async def main(primary, replica):
        settings = ReplicationSettings(
            primary=primary, replicas=[Replica(replica, "r")], hooks=[PrometheusHook()], probe_interval=0.05
        )
        engine = create_primary_engine(settings)
        replicas = create_replica_engine(settings, engine)
        async with Monitor(replicas):
            async with RoutedSession(replicas, intent=Intent.read()) as session:
                await session.execute(text("SELECT 1"))
            print("ready", flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        await replicas.dispose()
        await engine.dispose()

    asyncio.run(main(*sys.argv[1:]))
    """
)


def test_several_processes_are_one_target(shop_cluster: LocalCluster, tmp_path: pathlib.Path) -> None:
    """Counters are summed, up is the minimum and lag the maximum, pools are summed; stopped processes are left out."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def scraped() -> collections.abc.Sequence[str]:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(tmp_path))  # type: ignore[no-untyped-call]  # it has no types
        return generate_latest(registry).decode().splitlines()

    command = [sys.executable, "-c", WORKER, shop_cluster.primary.url, shop_cluster.replicas[0].url]
    workers = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        for _ in range(2)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        lines = scraped()
        assert 'db_read_route_total{reason="replica",target="replica"} 2.0' in lines
        assert 'db_server_up{server="r"} 1.0' in lines
        assert 'db_pool_size{pool="replica",server="r"} 30.0' in lines
        assert any(line.startswith('db_replication_lag_seconds{server="r"}') for line in lines)
    finally:
        for worker in workers:
            worker.communicate("stop\n")

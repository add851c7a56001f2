"""The settings apply to every engine, every pool and the monitor."""

import asyncio
import decimal
import json
import logging
import typing

import pytest
import sqlalchemy.ext.asyncio
from sqlalchemy import JSON, Engine, make_url, select, text, type_coerce
from sqlalchemy.ext.asyncio import AsyncEngine

from modern_di_replicas import Monitor, Primary, Replica, ReplicationSettings
from modern_di_replicas.cluster.engines.create import create_primary_engine, create_replica_engine
from modern_di_replicas.testing import LocalCluster, LocalServer
from tests.driver import server_settings
from tests.pgbouncer import not_behind_a_pooler
from tests.session.conftest import Servers, serving


def engines_of(servers: Servers) -> list[AsyncEngine]:
    return [servers.primary, *servers.replica.engines.values()]


def without_password(server: LocalServer) -> str:
    return make_url(server.url).set(password=None).render_as_string()


def password_of(server: LocalServer) -> str:
    return typing.cast(str, make_url(server.url).password)


async def shown(engine: AsyncEngine, setting: str) -> str:
    async with engine.connect() as connection:
        return str(await connection.scalar(text(f"SHOW {setting}")))


async def test_engine_options_reach_every_engine(replicated_cluster: LocalCluster) -> None:
    """A codec on the primary only would return different values on a replica."""
    options = {
        "json_deserializer": lambda value: json.loads(value, parse_float=decimal.Decimal),
        "pool_recycle": 600,
        "query_cache_size": 7,
        "echo_pool": False,
    }
    async with serving(replicated_cluster, engine_options=options) as servers:
        for engine in (*engines_of(servers), servers.replica):
            async with engine.connect() as connection:
                value = await connection.scalar(select(type_coerce(text("'[0.1]'::jsonb"), JSON)))
            assert value == [decimal.Decimal("0.1")]
            assert engine.sync_engine._compiled_cache.capacity == 7  # type: ignore[union-attr]  # noqa: SLF001  # shown nowhere else


@not_behind_a_pooler("it refuses settings of a connection")
async def test_connect_args_reach_every_pool_and_the_monitor(replicated_cluster: LocalCluster) -> None:
    """Those of a server override those of the settings."""
    primary, first, second = replicated_cluster.servers
    settings = {
        "primary": Primary(primary.url),
        "replicas": [first.url, Replica(second.url, connect_args=server_settings(work_mem="11MB"))],
        "connect_args": server_settings(work_mem="7MB"),
        "application_name": "args",
    }
    async with serving(replicated_cluster, **settings) as servers, Monitor(servers.replica):
        engines = {server.port: servers.replica.engines[f"127.0.0.1:{server.port}"] for server in (first, second)}
        assert await shown(servers.primary, "work_mem") == "7MB"
        assert await shown(engines[first.port], "work_mem") == "7MB"
        assert await shown(engines[second.port], "work_mem") == "11MB"
        names = second.execute("SELECT string_agg(DISTINCT application_name, ' ') FROM pg_stat_activity")
        assert {"args-replica", "args-monitor"} <= set(names.split())


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_password_is_requested_for_each_new_connection(
    replicated_cluster: LocalCluster, is_async: bool
) -> None:
    """For the pools and the monitor; from a plain or an async callable."""
    server = replicated_cluster.primary
    asked: list[str] = []

    def plain() -> str:
        asked.append("plain")
        return password_of(server)

    async def later() -> str:
        await asyncio.sleep(0)
        return plain()

    urls = [without_password(one) for one in replicated_cluster.servers]
    options = {"primary": urls[0], "replicas": urls[1:], "connect_args": {"password": later if is_async else plain}}
    async with serving(replicated_cluster, **options) as servers:
        async with Monitor(servers.replica):
            assert len(asked) == len(replicated_cluster.servers)
        for engine in engines_of(servers):
            assert await shown(engine, "transaction_read_only") in {"on", "off"}
        assert len(asked) == 7


async def test_instrumentation_that_is_called_after_the_import_sees_every_engine(
    replicated_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenTelemetry replaces `sqlalchemy.ext.asyncio.create_async_engine`, possibly after this package was imported."""
    seen: list[Engine] = []
    original = sqlalchemy.ext.asyncio.create_async_engine

    def instrumented(*args: typing.Any, **options: typing.Any) -> AsyncEngine:
        engine = original(*args, **options)
        seen.append(engine.sync_engine)
        return engine

    monkeypatch.setattr(sqlalchemy.ext.asyncio, "create_async_engine", instrumented)
    async with serving(replicated_cluster) as servers:
        assert seen == [engine.sync_engine for engine in (*engines_of(servers), servers.replica)]


async def test_a_pool_logs_as_sqlalchemys_own_do_with_the_name_of_its_server(
    replicated_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """INVARIANT: not under our logger, where each closed connection would log a line at INFO."""
    caplog.set_level(logging.INFO, "modern_di_replicas")
    primary, first, _ = replicated_cluster.servers
    for echo in (False, True):
        async with serving(
            replicated_cluster, replicas=[Replica(first.url, "small")], engine_options={"echo_pool": echo}
        ) as servers:
            for engine in engines_of(servers):
                async with engine.connect() as connection:
                    await connection.invalidate()
        if not echo:
            assert not [record for record in caplog.records if "pool" in record.name]
    names = {record.name for record in caplog.records if "pool" in record.name}
    assert names == {
        f"sqlalchemy.pool.impl.AsyncAdaptedQueuePool.{name}"
        for name in ("primary", "small", f"127.0.0.1:{primary.port}")
    }


def test_a_plugin_may_have_its_own_options() -> None:
    """SQLAlchemy passes all options to the plugin before it checks the rest."""
    url = "postgresql+asyncpg://app@db-1/shop"
    settings = ReplicationSettings(primary=url, engine_options={"plugins": [], "of_a_plugin": 1})

    with pytest.raises(TypeError, match="of_a_plugin"):
        create_primary_engine(settings)


def test_options_of_the_pools_are_not_given_to_the_engine_that_has_none() -> None:
    """The engine of all replicas uses the connections of their pools."""
    url = "postgresql+asyncpg://app@db-1/shop"
    options = {"pool_recycle": 5, "pool_use_lifo": True, "echo_pool": True, "pool_events": [], "echo": True}
    settings = ReplicationSettings(primary=url, replicas=[url.replace("db-1", "db-2")], engine_options=options)
    replica = create_replica_engine(settings, create_primary_engine(settings))

    assert replica.sync_engine.echo is True
    assert all(engine.sync_engine.echo is True for engine in replica.engines.values())

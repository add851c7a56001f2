"""Accounts with few privileges, and managed servers whose functions raise: a server that answers is up."""

import collections.abc
import contextlib
import logging
import typing

import pytest
from sqlalchemy import make_url, text

from modern_di_replicas import ConsistencyToken, Monitor, RoutedSession
from modern_di_replicas.cluster.monitoring.probe import Probe
from modern_di_replicas.cluster.questions import SOURCES, Source, find_missing
from modern_di_replicas.drivers.known import driver_of
from modern_di_replicas.routing.snapshot import Role
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import Servers, serving
from tests.waiting import until


@pytest.fixture(scope="module")
def cluster() -> collections.abc.Iterator[LocalCluster]:
    """Yield a cluster with an ordinary account."""
    with LocalCluster(replicas=1) as cluster:
        cluster.primary.execute(
            "CREATE ROLE app LOGIN PASSWORD 'app'; GRANT pg_monitor TO app; "
            "CREATE TABLE written (n serial PRIMARY KEY); GRANT ALL ON ALL TABLES IN SCHEMA public TO app; "
            "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app"
        )
        cluster.catch_up()
        yield cluster


def revoked(source: Source) -> str:
    kind = "SELECT" if source.kind == "TABLE" else "EXECUTE"
    signature = "" if source.kind == "TABLE" else f"({source.arguments})"
    return f"REVOKE {kind} ON {source.kind} pg_catalog.{source.name}{signature} FROM PUBLIC, pg_monitor, app"


@contextlib.asynccontextmanager
async def watched(cluster: LocalCluster, **settings: typing.Any) -> collections.abc.AsyncIterator[Servers]:
    primary, replica = (
        make_url(server.url).set(username="app", password="app").render_as_string(hide_password=False)
        for server in cluster.servers
    )
    urls = {"primary": primary, "replicas": [replica], "probe_interval": 0.1}
    async with serving(cluster, **urls, **settings) as servers, Monitor(servers.replica):
        yield servers


async def write(servers: Servers) -> ConsistencyToken:
    async with RoutedSession(servers.primary) as session:
        await session.execute(text("INSERT INTO written DEFAULT VALUES"))
        await session.commit()
    token = servers.replica.topology.own_write
    assert token is not None
    return token


def role_of_replica(servers: Servers, cluster: LocalCluster) -> Role:
    assert servers.replica.snapshot is not None
    return servers.replica.snapshot.servers[f"127.0.0.1:{cluster.replicas[0].port}"].role


async def until_read(servers: Servers, cluster: LocalCluster, token: ConsistencyToken) -> None:
    """Wait until the replica serves a read after a write."""

    async def serves() -> bool:
        async with RoutedSession(servers.replica.choose(after=token), primary=servers.primary) as session:
            return bool(await session.scalar(text("SELECT inet_server_port()")) == cluster.replicas[0].port)

    await until(serves)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", sorted(SOURCES))
async def test_without_some_privileges_the_servers_are_still_used(
    cluster: LocalCluster, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """INVARIANT: a server that answers is up. The missing privilege is logged once, with the GRANT that adds it."""
    source = SOURCES[name]
    cluster.primary.execute(revoked(source))
    cluster.catch_up()
    try:
        reads = name != "pg_last_wal_replay_lsn"
        async with watched(cluster, max_lag=None) as servers:
            assert role_of_replica(servers, cluster) is Role.STANDBY
            token = await write(servers)
            assert token.lsn > 0
            if reads:
                await until_read(servers, cluster, token)
            for _ in range(3):
                await write(servers)
        said = warnings(caplog)
        assert len(said) == 2, "once for each server"
        assert all(name in line and source.cost in line for line in said)
        grant = said[0].partition(": ")[2].rpartition(": ")[2].rstrip(";")
        cluster.primary.execute(grant)
        cluster.catch_up()
        caplog.clear()
        async with watched(cluster) as servers:
            await until_read(servers, cluster, await write(servers))
        assert warnings(caplog) == []
    finally:
        restored = revoked(source).replace("REVOKE", "GRANT").replace(" FROM PUBLIC, pg_monitor, app", " TO PUBLIC")
        cluster.primary.execute(restored)
        cluster.catch_up()


async def test_without_any_privilege_the_servers_are_still_used(
    cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the role of each server remains known, which suffices for reads without a freshness requirement."""
    cluster.primary.execute(";".join(revoked(source) for source in SOURCES.values()))
    cluster.catch_up()
    try:
        async with watched(cluster, max_lag=None) as servers:
            await write(servers)
            async with servers.session() as session:
                assert await session.scalar(text("SELECT inet_server_port()")) == cluster.replicas[0].port
        assert len(warnings(caplog)) == 2 * len(SOURCES)
    finally:
        restored = (
            revoked(source).replace("REVOKE", "GRANT").replace(" FROM PUBLIC, pg_monitor, app", " TO PUBLIC")
            for source in SOURCES.values()
        )
        cluster.primary.execute(";".join(restored))
        cluster.catch_up()


async def test_functions_that_raise_as_on_aurora_are_not_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    """Aurora's readers have no WAL: their functions exist, and raise."""
    raising = ("pg_last_wal_receive_lsn", "pg_last_wal_replay_lsn", "pg_last_xact_replay_timestamp")
    with LocalCluster(replicas=1) as cluster:
        for name in raising:
            kind = "timestamptz" if name.endswith("timestamp") else "pg_lsn"
            cluster.primary.execute(
                f"ALTER FUNCTION pg_catalog.{name}() RENAME TO {name}_of_postgresql; "
                f"CREATE FUNCTION pg_catalog.{name}() RETURNS {kind} LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE 'not supported for Aurora' USING ERRCODE = '0A000'; END $$"
            )
        cluster.primary.execute("CREATE TABLE written (n serial PRIMARY KEY)")
        cluster.primary.execute("SELECT pg_switch_wal()")
        await until(lambda: cluster.replicas[0].execute("SELECT to_regclass('written')") == "written")
        async with serving(cluster, max_lag=None) as servers, Monitor(servers.replica):
            assert role_of_replica(servers, cluster) is Role.STANDBY
            token = await write(servers)
            async with servers.session() as session:
                assert await session.scalar(text("SELECT inet_server_port()")) == cluster.replicas[0].port
            async with RoutedSession(servers.replica.choose(after=token), primary=servers.primary) as session:
                assert await session.scalar(text("SELECT inet_server_port()")) == cluster.primary.port
        async with serving(cluster) as servers, Monitor(servers.replica), servers.session() as session:
            assert await session.scalar(text("SELECT inet_server_port()")) == cluster.primary.port, "no lag is known"
    assert {name for name in raising if any(name in line for line in warnings(caplog))} == set(raising)


@pytest.mark.parametrize("schema_first", ["public", "pg_catalog"])
async def test_a_function_of_the_same_name_in_another_schema_is_not_taken_for_it(
    cluster: LocalCluster, schema_first: str
) -> None:
    """Every question names its schema, so the account's `search_path` has no effect."""
    cluster.primary.execute(
        f"CREATE FUNCTION public.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT true'; "
        f"ALTER ROLE app SET search_path = {schema_first}, pg_catalog, public"
    )
    cluster.catch_up()
    try:
        async with watched(cluster) as servers:
            await until_read(servers, cluster, await write(servers))
    finally:
        cluster.primary.execute("DROP FUNCTION public.pg_is_in_recovery(); ALTER ROLE app RESET search_path")
        cluster.catch_up()


class SaidError(Exception):
    """An error of a server with a SQLSTATE."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


async def test_a_server_that_shuts_down_during_a_question_has_no_missing_functions() -> None:
    """INVARIANT: a closed connection says nothing about a function, which would otherwise not be asked for again."""
    ended = SaidError("57P01")

    async def fetch(question: str) -> dict[str, str]:
        if "current_user" in question:
            return {"account": "app"}
        raise ended

    driver = driver_of(make_url("postgresql+asyncpg://app@db-1/shop"))
    with pytest.raises(SaidError, match="57P01"):
        await find_missing(driver, fetch, SaidError("42501"))


async def test_a_new_connection_asks_again_for_missing_functions(cluster: LocalCluster) -> None:
    """For example after a restart of the server: the privilege may have been granted meanwhile."""
    server, source = cluster.primary, SOURCES["pg_postmaster_start_time"]
    url = make_url(server.url).set(username="app", password="app")
    probe = Probe(url=url.render_as_string(hide_password=False), timeout=10)
    server.execute(revoked(source))
    try:
        assert (await probe.ask()).started is None
    finally:
        server.execute(source.grant("public").replace('"', ""))
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")

    assert (await probe.ask()).started is not None
    await probe.close()

"""Another cluster or a restored backup at the same addresses is followed without a restart."""

import asyncio
import collections.abc
import contextlib
import pathlib
import shutil
import subprocess
import typing

import pytest
from sqlalchemy import make_url, text

from modern_di_replicas import Monitor, RoutedSession
from modern_di_replicas.routing.positions import Freshness
from modern_di_replicas.routing.snapshot import Role
from modern_di_replicas.testing import LocalCluster, LocalServer
from tests.session.conftest import Servers, serving
from tests.waiting import until


ROLE = "app"


def url_of(server: LocalServer) -> str:
    """Return the URL of an account that exists in every cluster."""
    return make_url(server.url).set(username=ROLE, password=ROLE).render_as_string(hide_password=False)


def prepare(cluster: LocalCluster) -> None:
    cluster.primary.execute(
        f"CREATE ROLE {ROLE} SUPERUSER LOGIN PASSWORD '{ROLE}'; CREATE TABLE written (n serial PRIMARY KEY, note text)"
    )
    cluster.catch_up()


@contextlib.asynccontextmanager
async def watched(cluster: LocalCluster) -> collections.abc.AsyncIterator[Servers]:
    """Monitor a cluster with an account that its replacements will have as well."""
    prepare(cluster)
    settings: dict[str, typing.Any] = {
        "primary": url_of(cluster.primary),
        "replicas": [url_of(server) for server in cluster.replicas],
        "probe_interval": 0.1,
        "probe_timeout": 0.5,
    }
    async with serving(cluster, **settings) as servers, Monitor(servers.replica):
        yield servers


async def replace(old: LocalServer, new: LocalServer) -> None:
    """Replace a server by another one at the same address."""
    await asyncio.to_thread(old.stop, "immediate")
    await asyncio.to_thread(new.stop)
    new.port = old.port
    await asyncio.to_thread(new.start)


async def write(servers: Servers) -> int:
    async with RoutedSession(servers.primary) as session:
        await session.execute(text("INSERT INTO written (note) VALUES ('app')"))
        system = await session.scalar(text("SELECT system_identifier FROM pg_control_system()"))
        await session.commit()
        return int(typing.cast(int, system))


def system_of(server: LocalServer) -> int:
    return int(server.execute("SELECT system_identifier FROM pg_control_system()"))


async def until_written(servers: Servers, system: int) -> None:
    """Wait until writes reach a cluster; until then they may be refused."""

    async def arrives() -> bool:
        with contextlib.suppress(Exception):
            return await write(servers) == system
        return False

    await until(arrives)


def role(servers: Servers, server: LocalServer) -> Role:
    assert servers.replica.snapshot is not None
    return servers.replica.snapshot.servers[f"127.0.0.1:{server.port}"].role


@pytest.mark.parametrize("replicas", [0, 1])
async def test_another_cluster_at_the_same_addresses_is_used(replicas: int, caplog: pytest.LogCaptureFixture) -> None:
    """After an upgrade or a restored dump, reads and writes go to the new cluster, and old tokens are ignored."""
    with LocalCluster(replicas=replicas) as old, LocalCluster(replicas=replicas) as new:
        prepare(new)
        system = system_of(new.primary)
        async with watched(old) as servers:
            topology = servers.replica.topology
            await write(servers)
            token = topology.own_write  # not needed without replicas
            assert (token is not None) == (replicas > 0)
            for before, after in zip(old.servers, new.servers, strict=True):
                await replace(before, after)
                if replicas:  # the replica's receiver has to find its primary at the new port
                    new.servers[-1].execute(
                        f"ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port={new.primary.port} "
                        f"user={ROLE} password={ROLE}'; SELECT pg_reload_conf()"
                    )
            # At first, writes may succeed unnoticed, and a replica may be reported as "belongs to another" cluster.
            await until(lambda: "has another PostgreSQL cluster" in caplog.text)
            await until_written(servers, system)
            if token is not None:
                assert topology.own_write is not None
                assert topology.own_write.database != token.database
                assert topology.positions.required(Freshness(after=(token,)), now=0.0) == 0
            for server in new.replicas:
                await until(lambda server=server: role(servers, server) is Role.STANDBY)  # type: ignore[misc]  # mypy cannot infer a default


async def test_only_the_primary_is_replaced(disposable_cluster: LocalCluster) -> None:
    """The replicas of the old cluster still run: they serve nothing, and writes go to the new one."""
    with LocalCluster(replicas=0) as new:
        prepare(new)
        system = system_of(new.primary)
        async with watched(disposable_cluster) as servers:
            await write(servers)
            await replace(disposable_cluster.primary, new.primary)
            await until_written(servers, system)
            for server in disposable_cluster.replicas:
                await until(lambda server=server: role(servers, server) is Role.FOREIGN)  # type: ignore[misc]  # see above
            async with servers.session() as session:
                await session.execute(text("SELECT 1"))
                assert session.decision.server == "primary"


class Backup:
    """Copies of the data directories of a stopped cluster."""

    def __init__(self, servers: collections.abc.Sequence[LocalServer]) -> None:
        self._folders = {server: pathlib.Path(f"{server.data_directory}-backup") for server in servers}
        for server in reversed(servers):
            server.stop()
        for server, folder in self._folders.items():
            _copy(server.data_directory, folder)
        for server in servers:
            server.start()

    def restore(self, server: LocalServer) -> None:
        server.stop("immediate")
        shutil.rmtree(server.data_directory)
        _copy(self._folders[server], server.data_directory)
        server.start()


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    subprocess.run(["/bin/cp", "-a", str(source), str(target)], check=True)  # noqa: S603  # our own folders; keeps owners


async def test_a_backup_restored_on_the_same_timeline_serves_its_replicas_again(
    disposable_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """INVARIANT: earlier positions are discarded; otherwise replicas would be refused until they reach them again.

    A replica that is not restored yet has rows that the primary never wrote: it serves nothing.
    """
    primary, first, second = disposable_cluster.servers
    async with watched(disposable_cluster) as servers:
        backup = await asyncio.to_thread(Backup, disposable_cluster.servers)
        system = system_of(primary)
        await until_written(servers, system)
        filling = "INSERT INTO written (note) SELECT repeat('x', 1000) FROM generate_series(1, 5000)"
        await asyncio.to_thread(primary.execute, filling)
        disposable_cluster.catch_up()
        known = servers.replica.topology.furthest
        ahead = int(first.execute("SELECT pg_last_wal_replay_lsn() - '0/0'"))
        await until(lambda: all(known(f"127.0.0.1:{server.port}") >= ahead for server in (first, second)))

        await asyncio.to_thread(first.stop)
        await asyncio.to_thread(backup.restore, primary)
        await until(lambda: role(servers, second) is Role.LEFT_BEHIND)
        await until_written(servers, system)
        await asyncio.to_thread(backup.restore, first)
        await asyncio.to_thread(backup.restore, second)
        ports: set[int | None] = set()

        async def both_serve() -> bool:
            async with servers.session() as session:
                ports.add(await session.scalar(text("SELECT inet_server_port()")))
                assert await session.scalar(text("SELECT count(*) FROM written WHERE note <> 'app'")) == 0
            return {first.port, second.port} <= ports

        await until(both_serve)
    assert "a backup was restored" in caplog.text
    assert f"127.0.0.1:{second.port}" in caplog.text


async def test_a_backup_restored_to_an_older_timeline_is_used(disposable_cluster: LocalCluster) -> None:
    """INVARIANT: servers that were on the newest timeline have gone back; a former primary was never on it."""
    primary, first, second = disposable_cluster.servers
    async with watched(disposable_cluster) as servers:
        backup = await asyncio.to_thread(Backup, disposable_cluster.servers)
        system = system_of(primary)
        await until_written(servers, system)
        await asyncio.to_thread(primary.stop)
        await asyncio.to_thread(first.promote)
        await until_written(servers, system)
        await asyncio.to_thread(second.follow, first)
        await until(lambda: role(servers, second) is Role.STANDBY)
        for server in (second, first, primary):
            await asyncio.to_thread(backup.restore, server)
        await until(lambda: role(servers, primary) is Role.PRIMARY)
        await until_written(servers, system)
        assert await asyncio.to_thread(primary.execute, "SELECT count(*) > 0 FROM written") == "t"
        await until(lambda: role(servers, first) is role(servers, second) is Role.STANDBY)

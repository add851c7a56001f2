"""Passwords that change while the application runs."""

import asyncio

import pytest
from sqlalchemy import URL, make_url, text

from modern_di_replicas import EVENTUAL, Intent, Monitor, RoutedSession
from modern_di_replicas.testing import LocalCluster, LocalServer
from tests.pgbouncer import not_behind_a_pooler
from tests.session.conftest import Servers, serving
from tests.waiting import until


pytestmark = not_behind_a_pooler("it has the passwords, of its clients and for its servers")

OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"


def without_password(server: LocalServer, user: str) -> str:
    url = make_url(server.url)
    return URL.create(url.drivername, user, None, url.host, url.port, url.database).render_as_string()


async def test_a_password_is_rotated_under_load(disposable_cluster: LocalCluster) -> None:
    """INVARIANT: once the callable returns the new password, no request fails, and every replica serves."""
    passwords = {"given": "first", "valid": "first"}
    disposable_cluster.primary.execute(
        "CREATE ROLE app LOGIN PASSWORD 'first'; CREATE TABLE written (n serial); GRANT ALL ON written TO app;"
        "GRANT ALL ON SEQUENCE written_n_seq TO app; GRANT pg_monitor TO app"
    )
    disposable_cluster.catch_up()

    async def password() -> str:
        await asyncio.sleep(0)
        return passwords["given"]

    primary, *replicas = (without_password(server, "app") for server in disposable_cluster.servers)
    settings = {"primary": primary, "replicas": replicas, "connect_args": {"password": password}, "probe_interval": 0.1}
    async with serving(disposable_cluster, **settings) as servers, Monitor(servers.replica):
        failed: list[str] = []
        after: list[str] = []
        answered: set[str] = set()
        ended = asyncio.Event()

        async def request(servers: Servers) -> None:
            while not ended.is_set():
                is_new = passwords["given"] == "second"
                try:
                    async with RoutedSession(servers.primary) as session:
                        await session.execute(text("INSERT INTO written DEFAULT VALUES"))
                        await session.commit()
                    # On a busy machine, the replicas may always be behind the latest write.
                    async with servers.session(intent=Intent.read(consistency=EVENTUAL)) as session:
                        assert await session.scalar(text("SELECT 1")) == 1
                        answered.add(session.decision.server)
                except Exception as error:  # noqa: BLE001  # whatever it is, a user would see it
                    (after if is_new else failed).append(repr(error))
                await asyncio.sleep(0.02)  # the rate of a client

        tasks = [asyncio.create_task(request(servers)) for _ in range(3)]
        names = {server.label for server in servers.settings.servers}
        await until(lambda: names <= answered)
        await asyncio.to_thread(disposable_cluster.primary.execute, "ALTER ROLE app PASSWORD 'second'")
        await asyncio.to_thread(disposable_cluster.catch_up)
        for server in disposable_cluster.servers:
            await asyncio.to_thread(server.execute, OTHERS)
        await until(lambda: len(failed) > 0)
        passwords["given"] = "second"
        answered.clear()
        await until(lambda: names <= answered)
        ended.set()
        await asyncio.gather(*tasks)
    assert after == []


@pytest.mark.parametrize("which", ["primary", "replica"])
async def test_a_password_file_is_read_at_each_new_connection(
    disposable_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory, which: str
) -> None:
    """`passfile`, as in libpq."""
    file = tmp_path_factory.mktemp("secrets") / "pgpass"
    urls = [make_url(server.url) for server in disposable_cluster.servers]
    file.write_text("".join(f"{url.host}:{url.port}:*:{url.username}:{url.password}\n" for url in urls))
    file.chmod(0o600)
    primary, *replicas = (without_password(server, "postgres") for server in disposable_cluster.servers)
    settings = {"primary": primary, "replicas": replicas, "connect_args": {"passfile": str(file)}}
    async with serving(disposable_cluster, **settings) as servers, Monitor(servers.replica):
        session = RoutedSession(servers.primary) if which == "primary" else servers.session()
        async with session:
            assert await session.scalar(text("SELECT 1")) == 1
            assert (session.decision.server == "primary") is (which == "primary")

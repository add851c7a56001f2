"""Certificates: a pooler in front of each server requires them, so that any PostgreSQL can be used."""

import asyncio
import collections.abc
import contextlib
import logging
import pathlib
import ssl
import typing

import pytest
from sqlalchemy import make_url, text

from modern_di_replicas import ConfigurationError, Monitor, Primary, PrimaryUnavailable, Replica, RoutedSession
from modern_di_replicas.testing import LocalCluster, LocalServer
from tests.certificates import make_ca, needs_openssl, of_pooler, sign
from tests.driver import DRIVER, UNREACHABLE
from tests.pgbouncer import Pooler, needs_pgbouncer, not_behind_a_pooler, pooler
from tests.resolver import Resolver
from tests.session.conftest import Servers, serving
from tests.waiting import until


pytestmark = [not_behind_a_pooler("it has certificates of its own"), needs_pgbouncer, needs_openssl]


def verifying(
    folder: pathlib.Path, *, with_certificate: bool = True, authority: str = "ca.pem"
) -> dict[str, typing.Any]:
    """Return `connect_args` that verify the server's certificate and name, and send the client's certificate."""
    if DRIVER == "psycopg":
        client = {"sslcert": str(folder / "client.pem"), "sslkey": str(folder / "client.key")}
        return {"sslmode": "verify-full", "sslrootcert": str(folder / authority)} | (client if with_certificate else {})
    context = ssl.create_default_context(cafile=str(folder / authority))
    if with_certificate:
        context.load_cert_chain(folder / "client.pem", folder / "client.key")
    return {"ssl": context}


async def test_certificates_are_verified_by_the_pools_and_the_monitor(
    replicated_cluster: LocalCluster, certificates: pathlib.Path
) -> None:
    """A private CA, `verify-full` and a client certificate, for every server."""
    async with contextlib.AsyncExitStack() as stack:
        urls = []
        for server in replicated_cluster.servers:
            url = await stack.enter_async_context(pooler(server, **of_pooler(certificates)))
            urls.append(at("localhost", url))
        settings = {"primary": urls[0], "replicas": urls[1:], "pooled": True}
        connect_args = verifying(certificates)
        serve = serving(replicated_cluster, **settings, connect_args=connect_args)
        async with serve as servers, Monitor(servers.replica):
            assert servers.replica.topology.leader is not None
            for session in (servers.session(), RoutedSession(servers.primary)):
                async with session:
                    assert await session.scalar(text("SELECT 1")) == 1

        refused = verifying(certificates, with_certificate=False)
        async with serving(replicated_cluster, **settings, connect_args=refused) as servers, Monitor(servers.replica):
            assert servers.replica.topology.leader is None


@pytest.mark.parametrize("kind", ["another name", "no TLS"])
async def test_a_primary_that_tls_does_not_accept_is_an_error_at_the_start(
    replicated_cluster: LocalCluster, certificates: pathlib.Path, kind: str
) -> None:
    """INVARIANT: like a wrong password, because no retry corrects a setting."""
    pooling = of_pooler(certificates) if kind == "another name" else {}
    async with pooler(replicated_cluster.primary, **pooling) as url:
        arguments = verifying(certificates)
        async with serving(replicated_cluster, primary=url, connect_args=arguments, pooled=True) as servers:
            with pytest.raises(ConfigurationError, match="TLS does not accept it"):
                await Monitor(servers.replica).__aenter__()


def at(host: str, url: str) -> str:
    """Return a URL with another host."""
    return make_url(url).set(host=host).render_as_string(hide_password=False)


@contextlib.asynccontextmanager
async def restarting(
    server: LocalServer, folder: pathlib.Path, name: str
) -> collections.abc.AsyncIterator[tuple[str, Pooler]]:
    """Yield the URL of a server behind a pooler with the certificate `name.pem` for localhost, and the pooler."""
    sign(folder, name, "localhost")
    running = await asyncio.to_thread(Pooler, server.url, "*", **of_pooler(folder, name))
    try:
        yield at("localhost", running.url(server.url)), running
    finally:
        await asyncio.to_thread(running.end)


@pytest.mark.parametrize("kind", ["replica", "primary"])
async def test_rotated_certificates_fail_no_read(
    replicated_cluster: LocalCluster, certificates: pathlib.Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """INVARIANT: a new certificate of a known CA is accepted; one of another CA is logged, and the server is down.

    The server closes all connections each time, as at a restart.
    """
    server = replicated_cluster.primary if kind == "primary" else replicated_cluster.replicas[0]
    for ca in ("next-ca", "unknown-ca"):
        make_ca(certificates, ca)
    known = certificates / "known.pem"
    known.write_text("".join((certificates / f"{ca}.pem").read_text() for ca in ("ca", "next-ca")))
    async with restarting(server, certificates, "rotated") as (url, running):
        arguments = verifying(certificates, authority="known.pem")
        verified: dict[str, typing.Any] = {"url": url, "name": "verified", "connect_args": arguments, "pooled": True}
        plain = [one.url for one in replicated_cluster.replicas if one is not server]
        settings: dict[str, typing.Any] = {"replicas": plain, "primary": Primary(**verified)}
        if kind == "replica":
            settings = {"replicas": [*plain, Replica(**verified)]}
        settings["probe_interval"] = 0.05
        async with serving(replicated_cluster, **settings) as servers, Monitor(servers.replica), reading(servers):
            refusals: list[str] = []

            async def refused() -> bool:
                await serves()
                return "certificate verify failed" in refusals[-1]

            async def rotate(ca: str) -> None:
                sign(certificates, "rotated", "localhost", ca=ca)
                await asyncio.to_thread(running.restart)

            async def serves() -> bool:
                session = servers.session() if kind == "replica" else RoutedSession(servers.primary)
                try:
                    async with session:
                        is_standby = await session.scalar(text("SELECT pg_is_in_recovery()"))
                        assert is_standby == (kind == "replica")
                        return session.decision.server == "verified" or kind == "primary"
                except PrimaryUnavailable as error:
                    assert kind == "primary"
                    refusals.append(error.reason)
                    return False
                except UNREACHABLE:  # while it restarts
                    assert kind == "primary"
                    return False

            for ca in ("ca", "next-ca"):
                await rotate(ca)
                await until(serves)
            await rotate("unknown-ca")
            await until(lambda: any(record.levelno >= logging.ERROR for record in caplog.records))
            assert not await serves()
            if kind == "primary":
                await until(refused)
            await rotate("next-ca")
            await until(serves)
    (error,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert "verified is down: " in error
    assert "certificate verify failed" in error


@contextlib.asynccontextmanager
async def reading(servers: Servers) -> collections.abc.AsyncIterator[None]:
    """Let two clients read continuously, and raise their errors."""
    ended = asyncio.Event()

    async def client() -> None:
        while not ended.is_set():
            async with servers.session() as session:
                await session.scalar(text("SELECT 1"))

    tasks = [asyncio.create_task(client()) for _ in range(2)]
    try:
        yield
    finally:
        ended.set()
        await asyncio.gather(*tasks)


async def test_a_server_with_a_slow_name_is_verified_by_its_name(
    replicated_cluster: LocalCluster,
    certificates: pathlib.Path,
    resolver: Resolver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """INVARIANT: the driver gets the name although it was looked up before; an address could not be verified.

    Two replicas have the same certificate, which lacks the name of one of them.
    """
    names = ["slow-right.test", "slow-wrong.test"]
    sign(certificates, "named", names[0])
    async with pooler(replicated_cluster.replicas[0], **of_pooler(certificates, "named")) as url:
        replicas = [Replica(at(name, url), name, pooled=True, connect_args=verifying(certificates)) for name in names]
        settings: dict[str, typing.Any] = {"replicas": replicas, "probe_interval": 0.05, "probe_timeout": 0.2}
        async with serving(replicated_cluster, **settings) as servers, Monitor(servers.replica):

            async def serving_replica() -> str:
                async with servers.session() as session:
                    await session.execute(text("SELECT 1"))
                    return session.decision.server

            for _ in range(10):
                assert await serving_replica() == "primary"
                await servers.primary.dispose()  # so that the next one opens a new connection
            assert {resolver.most[name] for name in names} == {1}
            resolver.released.set()
            await until(lambda: "slow-wrong.test is down: " in caplog.text and "match" in caplog.text)

            async def serves() -> bool:
                return await serving_replica() == names[0]

            await until(serves)
            assert names[1] not in {await serving_replica() for _ in range(10)}

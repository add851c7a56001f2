"""Pooled connections at checkout: closed, dropped by a proxy, or healthy with unread data."""

import asyncio
import contextlib
import gc
import os
import socket
import time
import typing

import pytest
from sqlalchemy import event, text

from modern_di_replicas import RoutedSession
from modern_di_replicas.cluster.pools.pre_ping import RECHECK_SECONDS
from modern_di_replicas.cluster.pools.sockets import Idle, IdleSocket, limit_silence
from modern_di_replicas.testing import LocalCluster
from tests.pgbouncer import not_behind_a_pooler
from tests.proxies import SilentProxy
from tests.session.conftest import Servers, serving
from tests.waiting import wait_for


PID = text("SELECT pg_backend_pid()")


@pytest.fixture
def always_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modern_di_replicas.cluster.pools.pre_ping.RECHECK_SECONDS", 0.0)
    monkeypatch.setattr("modern_di_replicas.cluster.pools.pre_ping.IDLE_SECONDS", 0.0)


async def pid_of(servers: Servers, role: str) -> int:
    session = RoutedSession(servers.primary) if role == "primary" else servers.session()
    async with session:
        pid = await session.scalar(PID)
        assert session.decision.server.startswith("127.0.0.1" if role == "replica" else "primary")
        return typing.cast(int, pid)


@contextlib.asynccontextmanager
async def behind_proxy(
    cluster: LocalCluster, role: str, **settings: object
) -> typing.AsyncIterator[tuple[Servers, SilentProxy]]:
    server = cluster.primary if role == "primary" else cluster.replicas[0]
    async with SilentProxy.before(server.port) as proxy:
        url = proxy.url(server.url)
        urls = {"primary": url} if role == "primary" else {"replicas": [url]}
        async with serving(cluster, probe_timeout=0.3, **urls, **settings) as servers:
            yield servers, proxy


@pytest.mark.usefixtures("always_ping")
@pytest.mark.parametrize("role", ["primary", "replica"])
async def test_a_connection_that_a_proxy_has_forgotten_does_not_hold_a_statement(
    replicated_cluster: LocalCluster, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    """INVARIANT: the ping has a timeout.

    Without it a statement would wait minutes for TCP, which no monitor detects. The ping's own error, which arrives
    after the timeout, is not logged.
    """
    async with behind_proxy(replicated_cluster, role) as (servers, proxy):
        before = await pid_of(servers, role)
        assert await pid_of(servers, role) == before, "a healthy connection is replaced"
        proxy.forget()
        async with asyncio.timeout(20):
            assert await pid_of(servers, role) != before
    gc.collect()
    assert [record for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.usefixtures("always_ping")
async def test_a_checkout_that_is_cancelled_while_it_is_validated_leaves_nothing_behind(
    replicated_cluster: LocalCluster,
) -> None:
    """Its place in the pool is free again, and the connection is not reused."""
    async with behind_proxy(replicated_cluster, "primary", primary_pool_size=1, primary_max_overflow=0) as (
        servers,
        proxy,
    ):
        await pid_of(servers, "primary")
        proxy.forget()
        given_up = asyncio.create_task(pid_of(servers, "primary"))
        await asyncio.wait({given_up}, timeout=0.05)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        async with asyncio.timeout(20):
            await pid_of(servers, "primary")


@pytest.mark.usefixtures("always_ping")
async def test_a_backend_that_ends_while_it_is_pinged_is_replaced(replicated_cluster: LocalCluster) -> None:
    """The ping fails with an error instead of a timeout."""
    async with serving(replicated_cluster) as servers:
        before = await pid_of(servers, "primary")
        # After the check of the socket and before the ping, as an administrator may do.
        pool = servers.primary.sync_engine.pool

        def end(connection: object, *_: object) -> None:  # noqa: ARG001  # the event's signature
            replicated_cluster.primary.execute(f"SELECT pg_terminate_backend({before})")

        event.listen(pool, "checkout", end, insert=True)
        try:
            # The loop has not run since, so the driver has not noticed.
            assert await pid_of(servers, "primary") != before
        finally:
            event.remove(pool, "checkout", end)


@not_behind_a_pooler("the connection to the server is the pooler's")
@pytest.mark.parametrize("role", ["primary", "replica"])
async def test_connections_are_recycled_at_their_age(replicated_cluster: LocalCluster, role: str) -> None:
    """`pool_recycle` applies to every pool, for load balancers that close old connections."""
    async with serving(replicated_cluster, engine_options={"pool_recycle": 0}) as servers:
        first, second = [await pid_of(servers, role) for _ in range(2)]
        assert first != second


@not_behind_a_pooler("the connection to the server is the pooler's")
@pytest.mark.parametrize("role", ["primary", "replica"])
async def test_a_connection_that_ended_while_it_was_held_is_replaced(
    replicated_cluster: LocalCluster, role: str
) -> None:
    """INVARIANT: without an open transaction its return sends nothing, so the next checkout has to detect it."""
    async with serving(replicated_cluster) as servers:
        is_primary = role == "primary"
        server = replicated_cluster.primary if is_primary else replicated_cluster.replicas[0]
        found = servers.primary if is_primary else servers.replica.topology.servers[1].engine
        engine = found.execution_options(isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            pid = await connection.scalar(PID)
            taken = time.monotonic()
            server.execute(f"SELECT pg_terminate_backend({pid}, 20000)")
            wait_for(lambda: time.monotonic() - taken > RECHECK_SECONDS)  # the loop does not notice the end either
        async with engine.connect() as connection:
            assert await connection.scalar(PID) != pid


@pytest.mark.parametrize(("seconds", "checks"), [(60.0, 0), (0.0, 3)])
async def test_a_socket_is_not_checked_again_within_the_recheck_time(
    replicated_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, seconds: float, checks: int
) -> None:
    """Each check is a system call, which a busy pool would make at every checkout; the driver's state costs nothing."""
    checked: list[IdleSocket] = []
    check = IdleSocket.check

    def counted(found: IdleSocket) -> Idle:
        checked.append(found)
        return check(found)

    monkeypatch.setattr(IdleSocket, "check", counted)
    monkeypatch.setattr("modern_di_replicas.cluster.pools.pre_ping.RECHECK_SECONDS", seconds)
    async with serving(replicated_cluster) as servers:
        before = await pid_of(servers, "primary")
        for _ in range(3):
            assert await pid_of(servers, "primary") == before
        assert len(checked) == checks
        async with servers.primary.connect() as connection:
            raw = await connection.get_raw_connection()
            opened = raw.driver_connection
        servers.settings.driver.terminate(opened)
        assert await pid_of(servers, "primary") != before


def test_a_socket_distinguishes_data_from_its_end() -> None:
    """A notification is not a closed connection, and vice versa."""
    here, there = socket.socketpair()
    with here, there:
        assert IdleSocket(here.fileno()).check() is Idle.QUIET
        there.send(b"a notification")
        assert IdleSocket(here.fileno()).check() is Idle.READABLE
        assert here.recv(100) == b"a notification", "looking takes nothing away"
        there.close()
        assert IdleSocket(here.fileno()).check() is Idle.DEAD
        number = here.fileno()
    assert IdleSocket(number).check() is Idle.DEAD


def test_an_error_of_a_socket_is_its_end() -> None:
    """A connection that was reset delivers no more data."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as here:
        there, _ = server.accept()
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close() resets
        there.close()
        assert IdleSocket(here.fileno()).check() is Idle.DEAD


async def test_the_operating_system_closes_a_connection_to_an_unreachable_peer(
    replicated_cluster: LocalCluster,
) -> None:
    """A statement gets an error after `connect_timeout`, where the operating system supports it."""
    async with serving(replicated_cluster, connect_timeout=3.0) as servers, servers.primary.connect() as connection:
        raw = await connection.get_raw_connection()
        found: typing.Any = servers.settings.driver.descriptor(raw.driver_connection)
        with socket.socket(fileno=os.dup(found)) as duplicate:
            assert duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert duplicate.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000
    one, other = socket.socketpair()
    with one, other:
        limit_silence(one.fileno(), seconds=1.0)  # a Unix socket cannot and need not do this


async def test_a_connection_that_is_closed_has_no_socket(replicated_cluster: LocalCluster) -> None:
    """Both drivers report it; an open connection has a socket."""
    async with serving(replicated_cluster) as servers, servers.primary.connect() as connection:
        raw = await connection.get_raw_connection()
        driver, opened = servers.settings.driver, raw.driver_connection
        assert driver.descriptor(opened) is not None
        driver.terminate(opened)
        assert driver.descriptor(opened) is None or driver.is_closed(opened)
        await connection.invalidate()


async def test_a_new_connection_without_a_socket_gets_no_timeout(
    replicated_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection may be lost at that moment; its user gets that error instead of a timeout."""
    async with serving(replicated_cluster) as servers:
        monkeypatch.setattr(type(servers.settings.driver), "descriptor", lambda *_: None)
        assert await pid_of(servers, "primary") == await pid_of(servers, "primary")

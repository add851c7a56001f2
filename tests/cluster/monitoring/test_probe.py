import asyncio
import dataclasses
import time

import pytest
from sqlalchemy import make_url

from modern_di_replicas.cluster.monitoring.probe import Probe
from modern_di_replicas.drivers.known import driver_of
from modern_di_replicas.testing import LocalCluster, LocalServer
from tests.driver import only_on
from tests.proxy import Proxy
from tests.waiting import until


def probe_of(server: LocalServer, *, timeout: float = 0.3) -> Probe:
    driver = driver_of(make_url(server.url))
    arguments = driver.connect_args({}, application_name="probe", timeout=timeout, pooled=False)
    return Probe(url=server.url, timeout=timeout, connect_args=arguments)


def at_port(server: LocalServer, port: int) -> str:
    return make_url(server.url).set(port=port).render_as_string(hide_password=False)


async def test_a_probe_returns_the_servers_own_report(replicated_cluster: LocalCluster) -> None:
    """The same question to a primary and to a standby."""
    primary, standby = (probe_of(server, timeout=10) for server in replicated_cluster.servers[:2])
    replicated_cluster.catch_up()

    said, said_by_standby = await primary.ask(), await standby.ask()

    assert (said.in_recovery, said_by_standby.in_recovery) == (False, True)
    assert said.system == said_by_standby.system
    assert said.timeline == said_by_standby.timeline == 1
    assert said_by_standby.lsn > 0
    assert said.at <= time.monotonic()
    await primary.close()
    await standby.close()


async def test_a_closed_connection_does_not_mean_that_the_server_is_down(
    replicated_cluster: LocalCluster,
) -> None:
    """INVARIANT: a terminated idle connection is not a failed server; the probe asks again on a new one."""
    server = replicated_cluster.primary
    probe = probe_of(server, timeout=10)
    await probe.ask()
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'probe'")

    assert not (await probe.ask()).in_recovery

    await probe.close()


@only_on("asyncpg", "psycopg lets a second question wait")
async def test_a_connection_that_is_replaced_is_ended(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: one connection per probe: servers have few, and half-open ones accumulate."""
    server = replicated_cluster.primary
    probe = probe_of(server, timeout=10)
    await probe.ask()
    connection = probe._kept  # noqa: SLF001  # nothing else can keep the probe's own connection busy
    busy = asyncio.ensure_future(connection.execute("SELECT pg_sleep(60)"))
    await asyncio.sleep(0)

    await probe.ask()  # the driver refuses a second question on the first connection

    assert (await asyncio.gather(busy, return_exceptions=True))[0] is not None
    await probe.close()


async def test_a_brief_answer_is_as_full_as_the_others(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: omitted facts were reported on the same connection; a new connection may lead to another server."""
    server = replicated_cluster.primary
    probe = probe_of(server, timeout=10)
    full, brief = await probe.ask(briefly=True), await probe.ask(briefly=True)
    assert dataclasses.replace(brief, at=full.at, answered=full.answered, lsn=full.lsn, written=full.written) == full

    probe.url = make_url(server.url).set(database="template1").render_as_string(hide_password=False)
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'probe'")
    elsewhere = await probe.ask(briefly=True)
    assert (elsewhere.system, elsewhere.timeline) == (full.system, full.timeline)
    assert elsewhere.database != full.database
    await probe.close()


@pytest.mark.parametrize("refused", [True, False])
async def test_an_answer_that_was_slow_counts_when_no_other_is_there_first(
    replicated_cluster: LocalCluster, refused: bool
) -> None:
    """Meanwhile a new connection is tried, which is refused or gets no answer either."""
    tried = asyncio.Event()
    silent: list[asyncio.StreamWriter] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if refused:
            writer.close()
        silent.append(writer)
        tried.set()

    server = replicated_cluster.primary
    async with Proxy(server.port) as proxy, await asyncio.start_server(accept, "127.0.0.1") as other:
        probe = probe_of(server, timeout=10)
        probe.url = at_port(server, proxy.port)
        await probe.ask()
        proxy.hold(b"")  # the next message, whatever it is
        probe.timeout = 1.0
        probe.url = at_port(server, other.sockets[0].getsockname()[1])
        asking = asyncio.create_task(probe.ask())
        await tried.wait()
        proxy.release()

        assert not (await asking).in_recovery
        assert not probe.has_replaced_silent
        await probe.close()
        for writer in silent:
            writer.close()


async def test_a_new_connection_without_an_answer_is_closed(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: otherwise each probe would leave a connection open."""
    server = replicated_cluster.primary
    left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'probe'"
    async with Proxy(server.port) as proxy:
        probe = probe_of(server)
        probe.url = at_port(server, proxy.port)
        proxy.hold(b"pg_is_in_recovery")  # it has connected by then
        with pytest.raises(TimeoutError):
            await probe.ask()
        assert proxy.reached.is_set()
        proxy.release()
        await until(lambda: server.execute(left) == "0")
        await probe.close()


@pytest.mark.parametrize("connected", [True, False])
async def test_a_frozen_server_is_given_up_within_the_time_limit(
    disposable_cluster: LocalCluster, connected: bool
) -> None:
    """With and without an open connection: a frozen server's kernel accepts connections, but nothing answers."""
    probe = probe_of(disposable_cluster.primary)
    if connected:
        probe.timeout = 10
        await probe.ask()
        probe.timeout = 0.3
    disposable_cluster.primary.freeze()

    for _ in range(2):
        with pytest.raises(TimeoutError, match=r"0\.3"):
            await probe.ask()
    disposable_cluster.primary.thaw()
    probe.timeout = 10
    assert not (await probe.ask()).in_recovery
    await probe.close()


async def test_a_connection_with_an_abandoned_question_is_closed_with_the_probe(
    disposable_cluster: LocalCluster,
) -> None:
    """It cannot be closed while a question is in flight, even if no caller waits for it."""
    probe = probe_of(disposable_cluster.primary, timeout=10)
    await probe.ask()
    asked, probe.timeout = probe._kept, 0.1  # noqa: SLF001  # as below
    disposable_cluster.primary.freeze()
    with pytest.raises(TimeoutError):
        await probe.ask()
    await probe.close()
    assert driver_of(make_url(probe.url)).is_closed(asked)
    disposable_cluster.primary.thaw()


async def test_a_probe_can_be_cancelled_and_closed_while_its_server_is_frozen(disposable_cluster: LocalCluster) -> None:
    """A frozen server must not delay the end of the application."""
    waiting, idle = (probe_of(disposable_cluster.primary, timeout=10) for _ in range(2))
    for probe in (waiting, idle):
        await probe.ask()
    disposable_cluster.primary.freeze()

    asked = waiting._kept  # noqa: SLF001  # its outcome is visible nowhere else
    task = asyncio.create_task(waiting.ask())
    await asyncio.wait({task}, timeout=0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await waiting.close()
    assert driver_of(make_url(waiting.url)).is_closed(asked), "the loop may end now, and would leave it open"
    idle.timeout = 0.1
    await idle.close()
    disposable_cluster.primary.thaw()

import asyncio
import collections.abc
import contextlib
import dataclasses
import datetime as dt
import shlex
import shutil

import httpx
import pytest

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.demo.application import create_application
from modern_di_replicas.demo.scenario import Exchange, Visitor, curl_lines, visit
from modern_di_replicas.demo.server import serving
from modern_di_replicas.demo.topology import settings_for
from modern_di_replicas.testing import LocalCluster


WRITES = {"POST /users", "PUT /users/1", "DELETE /users/2", "GET /me", "GET /visits/1"}


class Notes:
    """A view that records its calls."""

    def __init__(self) -> None:
        self.seen: list[Exchange] = []

    def show_exchange(self, exchange: Exchange) -> None:
        self.seen.append(exchange)


@contextlib.asynccontextmanager
async def visiting(settings: ReplicationSettings) -> collections.abc.AsyncIterator[tuple[str, Visitor, Notes]]:
    """Serve the application; yield its address, a visitor, and the recorded calls."""
    notes = Notes()
    async with (
        serving(create_application(settings), port=0) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        yield url, Visitor(client=client, view=notes), notes


async def test_writes_go_to_the_primary_and_reads_to_the_replicas_that_may_answer(
    settings: ReplicationSettings, replicated_cluster: LocalCluster
) -> None:
    """The rows show what the servers reported, in the order of the requests."""
    async with visiting(settings) as (_, visitor, notes):
        await visit(visitor)
    assert notes.seen == visitor.exchanges
    assert {exchange.method for exchange in notes.seen} == {"GET", "HEAD", "POST", "PUT", "DELETE"}
    primary, *replicas = (server.port for server in replicated_cluster.servers)
    writes = [exchange for exchange in notes.seen if f"{exchange.method} {exchange.path}" in WRITES]
    anywhere = [exchange for exchange in notes.seen if exchange.report.level == "EVENTUAL"]
    strong = [exchange for exchange in notes.seen if exchange.report.level == "STRONG"]
    assert {exchange.report.port for exchange in writes + strong} == {primary}
    assert {exchange.report.port for exchange in anywhere} == set(replicas)
    assert {exchange.report.marker for exchange in notes.seen} == {"", "@read_intent", "@write_intent"}


@contextlib.contextmanager
def paused(cluster: LocalCluster) -> collections.abc.Iterator[None]:
    for replica in cluster.replicas:
        replica.pause_replay()
    try:
        yield
    finally:
        for replica in cluster.replicas:
            replica.resume_replay()


async def test_every_read_includes_earlier_writes_even_if_no_replica_has_them(
    disposable_cluster: LocalCluster,
) -> None:
    """The demo also works on a slow machine: then the primary answers, and the row gives the reason."""
    # With the demo's own limit of a second, a slow machine would eject the replicas for their lag.
    settings = dataclasses.replace(settings_for(disposable_cluster), max_lag=dt.timedelta(minutes=10))
    async with visiting(settings) as (_, visitor, notes):
        disposable_cluster.catch_up()
        with paused(disposable_cluster):
            await visit(visitor)
    ordinary = [exchange for exchange in notes.seen if exchange.report.intent == "read" and not exchange.report.level]
    assert [exchange.status for exchange in ordinary] == [200] * (len(ordinary) - 1) + [404]
    assert all(exchange.report.has_token for exchange in ordinary)
    assert not any(exchange.report.in_recovery for exchange in ordinary)
    assert [exchange.report.reason for exchange in ordinary if "escalated" not in exchange.report.reason] == []


async def test_a_failure_of_the_application_ends_the_demo() -> None:
    """No row is shown for a failed request."""
    notes = Notes()
    transport = httpx.MockTransport(lambda _: httpx.Response(500))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        visitor = Visitor(client=client, view=notes)
        with pytest.raises(httpx.HTTPStatusError):
            await visitor.send("GET", "/users/1")
    assert notes.seen == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_every_curl_line_can_be_run(settings: ReplicationSettings, replicated_cluster: LocalCluster) -> None:
    """All succeed in sequence, and each response names its server."""
    async with visiting(settings) as (url, visitor, _):
        user_id = await visit(visitor)
        await asyncio.to_thread(replicated_cluster.catch_up)
        for line in curl_lines(url, user_id):
            process = await asyncio.create_subprocess_exec(
                *shlex.split(line), "--silent", "--noproxy", "*", stdout=asyncio.subprocess.PIPE
            )
            output, _ = await process.communicate()
            assert process.returncode == 0
            assert output.decode().splitlines()[0].split()[1] in ("200", "201", "204"), output
            assert b"x-server-port: " in output

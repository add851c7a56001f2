import asyncio
import shlex
import shutil

import httpx
import pytest

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.demo.application import create_application
from modern_di_replicas.demo.scenario import Exchange, Visitor, curl_lines, visit
from modern_di_replicas.demo.server import serving
from modern_di_replicas.testing import LocalCluster


class Notes:
    """An audience that writes down what it sees."""

    def __init__(self) -> None:
        self.seen: list[Exchange | None] = []

    def show_exchange(self, exchange: Exchange) -> None:
        self.seen.append(exchange)

    def show_wait(self, seconds: float) -> None:
        assert seconds > 0
        self.seen.append(None)


async def test_reads_come_from_both_replicas_and_writes_from_the_primary(
    settings: ReplicationSettings, replicated_cluster: LocalCluster
) -> None:
    """What the audience is shown is what the servers said, in the order of the requests."""
    notes = Notes()
    async with (
        serving(create_application(settings), port=0) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        visitor = Visitor(client=client, cluster=replicated_cluster, audience=notes)
        await visit(visitor)
    assert [exchange for exchange in notes.seen if exchange] == visitor.exchanges
    assert {exchange.method for exchange in visitor.exchanges} == {"GET", "HEAD", "POST", "PUT", "DELETE"}
    wrote = {"POST /users", "PUT /users/1", "DELETE /users/2", "GET /me", "GET /visits/1"}
    reads = [exchange for exchange in visitor.exchanges if f"{exchange.method} {exchange.path}" not in wrote]
    writes = [exchange for exchange in visitor.exchanges if f"{exchange.method} {exchange.path}" in wrote]
    assert all(exchange.report.in_recovery for exchange in reads)
    assert {exchange.report.port for exchange in reads} == {server.port for server in replicated_cluster.replicas}
    assert {exchange.report.port for exchange in writes} == {replicated_cluster.primary.port}
    assert {exchange.report.marker for exchange in visitor.exchanges} == {"", "@read_intent", "@write_intent"}


async def test_every_read_after_a_write_waits_for_the_replicas_and_says_so(
    settings: ReplicationSettings, replicated_cluster: LocalCluster
) -> None:
    """Replication lags: without the wait a row of the demo would now and then be wrong."""
    notes = Notes()
    async with (
        serving(create_application(settings), port=0) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        await visit(Visitor(client=client, cluster=replicated_cluster, audience=notes))
    written: set[str] = set()
    for seen in notes.seen:
        if seen is None:
            written.clear()
        elif not seen.report.in_recovery and seen.path.startswith("/users"):
            written.add(seen.path)
        elif seen.report.in_recovery:
            assert not written, f"{seen} came before the wait"


async def test_a_failure_of_the_application_ends_the_demo(replicated_cluster: LocalCluster) -> None:
    """A row is never made up for a request that failed."""
    notes = Notes()
    transport = httpx.MockTransport(lambda _: httpx.Response(500))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        visitor = Visitor(client=client, cluster=replicated_cluster, audience=notes)
        with pytest.raises(httpx.HTTPStatusError):
            await visitor.send("GET", "/users/1")
    assert notes.seen == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_every_curl_line_can_be_run(settings: ReplicationSettings, replicated_cluster: LocalCluster) -> None:
    """They succeed one after the other, and each answer says who gave it."""
    async with serving(create_application(settings), port=0) as url:
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            user_id = await visit(Visitor(client=client, cluster=replicated_cluster, audience=Notes()))
        for line in curl_lines(url, user_id):
            process = await asyncio.create_subprocess_exec(
                *shlex.split(line), "--silent", "--noproxy", "*", stdout=asyncio.subprocess.PIPE
            )
            output, _ = await process.communicate()
            assert process.returncode == 0
            assert output.decode().splitlines()[0].split()[1] in ("200", "201", "204"), output
            assert b"x-server-port: " in output

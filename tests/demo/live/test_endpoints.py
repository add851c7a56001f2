"""The demo's page, events and buttons, over HTTP."""

import collections.abc
import contextlib
import json
import re
import typing

import httpx
import pytest

from modern_di_replicas.demo.application import create_application
from modern_di_replicas.demo.faults import Faults
from modern_di_replicas.demo.live.endpoints import Live
from modern_di_replicas.demo.server import serving
from modern_di_replicas.demo.topology import settings_for
from modern_di_replicas.testing import LocalCluster
from tests.demo.conftest import soon_noticing


ADA = {"name": "Ada Lovelace", "email": "ada@example.com"}


@contextlib.asynccontextmanager
async def live_demo(
    cluster: LocalCluster, *, port: int = 0
) -> collections.abc.AsyncIterator[tuple[httpx.AsyncClient, Live]]:
    app = create_application(soon_noticing(settings_for(cluster)))
    live = Live(app, Faults(cluster))
    async with serving(app, port=port) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        with contextlib.closing(live):
            yield client, live


async def pictures(client: httpx.AsyncClient) -> collections.abc.AsyncGenerator[dict[str, typing.Any], None]:
    async with client.stream("GET", "/live/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


async def picture(
    client: httpx.AsyncClient, condition: collections.abc.Callable[[dict[str, dict[str, typing.Any]]], bool]
) -> dict[str, typing.Any]:
    """Return the first picture in which the servers, by name, satisfy a condition."""
    async with contextlib.aclosing(pictures(client)) as stream:
        async for seen in stream:
            if condition({server["name"]: server for server in seen["servers"]}):
                return seen
    pytest.fail("the stream ended")  # pragma: no cover


async def test_the_events_show_the_snapshot_and_the_buttons_break_servers(
    disposable_cluster: LocalCluster,
) -> None:
    """Names and ports are those of the cluster; a frozen server is shown as down, and as up once it thaws."""
    async with live_demo(disposable_cluster) as (client, _):
        user_id = (await client.post("/users", json=ADA)).json()["id"]
        await client.get(f"/users/{user_id}")
        seen = await picture(client, lambda servers: all(server["up"] for server in servers.values()))
        assert [(server["name"], server["port"], server["role"]) for server in seen["servers"]] == [
            (server.name, server.port, "primary" if server.name == "primary" else "standby")
            for server in disposable_cluster.servers
        ]
        assert [server["serves_reads"] for server in seen["servers"]] == [False, True, True]
        assert {type(server["in_use"]) for server in seen["servers"]} == {int}
        assert sum(server["answered"] for server in seen["servers"]) == 2
        assert seen["failed"] == {"read": 0, "write": 0}
        assert len(seen["recent"]) == 2
        assert [line["request"] for line in seen["decisions"]] == [f"GET /users/{user_id}", "POST /users"]

        assert (await client.post("/live/replica-1/freeze")).status_code == 204
        seen = await picture(client, lambda servers: not servers["replica-1"]["up"])
        frozen = seen["servers"][1]
        assert (frozen["state"], frozen["serves_reads"], frozen["faults"]) == ("frozen", False, ["thaw", "crash"])
        assert frozen["lag_seconds"] is None
        assert (await client.post("/live/replica-1/thaw")).status_code == 204
        await picture(client, lambda servers: servers["replica-1"]["serves_reads"])

        assert (await client.post("/live/primary/crash")).status_code == 204
        assert (await client.put(f"/users/{user_id}", json={**ADA, "name": "Ada King"})).status_code == 503
        seen = await picture(client, lambda servers: servers["primary"]["state"] == "crashed")
        assert seen["failed"] == {"read": 0, "write": 1}


@pytest.mark.parametrize(
    ("path", "headers", "status", "detail"),
    [
        ("/live/replica-1/thaw", {}, 409, "replica-1 is running: freeze, crash, lag, promote is possible there"),
        ("/live/replica-1/burn", {"Sec-Fetch-Site": "same-origin"}, 409, "'burn' is unknown"),
        ("/live/replica-1/crash", {"Sec-Fetch-Site": "cross-site"}, 403, "Only the page of the demo may do this."),
    ],
)
async def test_a_forbidden_button_is_refused(
    replicated_cluster: LocalCluster, path: str, headers: dict[str, str], status: int, detail: str
) -> None:
    """A page of another site cannot break the servers either."""
    async with live_demo(replicated_cluster) as (client, _):
        response = await client.post(path, headers=headers)
    assert response.status_code == status
    assert response.json()["detail"].startswith(detail)


async def test_the_streams_end_when_the_demo_ends(replicated_cluster: LocalCluster) -> None:
    """Otherwise Ctrl-C would wait for every open page."""
    async with live_demo(replicated_cluster) as (client, live):
        stream = pictures(client)
        await anext(stream)
        live.close()
        assert [seen async for seen in stream if seen["servers"] == []] == []


async def test_the_page_needs_nothing_from_elsewhere(replicated_cluster: LocalCluster) -> None:
    """One file that needs no network: its policy forbids the browser to load anything else."""
    async with live_demo(replicated_cluster) as (client, _):
        response = await client.get("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    links = re.findall(r"""(?:src|href|url\()\s*=?\s*["']?([^"'\s)>]+)""", response.text)
    assert [link for link in links if not link.startswith("data:")] == []


async def test_before_any_answer_every_server_is_unknown(replicated_cluster: LocalCluster) -> None:
    """Without a monitor, no server is shown as up."""
    live = Live(create_application(settings_for(replicated_cluster)), Faults(replicated_cluster))
    servers = live.picture.servers()
    assert {(server.role, server.up, server.lag_bytes) for server in servers} == {("unknown", False, None)}

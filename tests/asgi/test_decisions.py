"""The decision of a request, for middlewares and for clients."""

import collections.abc
import typing

import httpx
import pytest

from modern_di_replicas import Cause, Decision
from modern_di_replicas.asgi.decisions import DecisionMiddleware
from modern_di_replicas.observability import TokenReceived, TokenSent
from modern_di_replicas.testing import LocalCluster
from tests.asgi.application import BUILDERS, paused, settings_of
from tests.observability.recorder import Recorder


Asgi = collections.abc.Callable[[typing.Any, typing.Any, typing.Any], collections.abc.Awaitable[None]]


class Watch:
    """The application's outermost middleware; it reads the decision after each response."""

    def __init__(self, app: typing.Any) -> None:
        self.app = app
        self.decisions: list[Decision | None] = []

    async def __call__(self, scope: typing.Any, receive: typing.Any, send: typing.Any) -> None:
        scope["state"] = {}
        await self.app(scope, receive, send)
        self.decisions.append(scope["state"].get("decision"))


@pytest.mark.parametrize("framework", BUILDERS)
async def test_a_middleware_reads_the_decision_in_the_state_of_the_request(
    framework: str, stock_cluster: LocalCluster
) -> None:
    """With a session, and with Core on the injected engine."""
    application = BUILDERS[framework](settings_of(stock_cluster), {})
    watch = Watch(application.asgi)
    async with application.running():
        transport = httpx.ASGITransport(typing.cast(typing.Any, watch))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for method, path in (("GET", "/read"), ("GET", "/core"), ("POST", "/write/commit"), ("GET", "/nowhere")):
                response = await client.request(method, path)
                assert "server-timing" not in response.headers
    causes = [None if one is None else one.cause for one in watch.decisions]
    assert causes == [Cause.REPLICA, Cause.REPLICA, Cause.WRITE, None]
    assert watch.decisions[0] is not None
    assert watch.decisions[0].reason == "GET"


@pytest.mark.parametrize("framework", BUILDERS)
async def test_a_response_names_its_server_if_the_settings_say_so(framework: str, stock_cluster: LocalCluster) -> None:
    """Browsers show the header with the request; responses without a unit of work have none."""
    application = BUILDERS[framework](settings_of(stock_cluster, server_timing=True), {})
    async with application.running(), application.client() as client:
        read = await client.get("/read")
        wrote = await client.post("/write/commit")
        nowhere = await client.get("/nowhere")
    names = {f'db;desc="127.0.0.1:{replica.port} (replica)"' for replica in stock_cluster.replicas}
    assert read.headers["server-timing"] in names
    assert wrote.headers["server-timing"] == 'db;desc="primary (write)"'
    assert "server-timing" not in nowhere.headers


@pytest.mark.parametrize("framework", BUILDERS)
async def test_tokens_are_reported_to_the_hooks(framework: str, stock_cluster: LocalCluster) -> None:
    """Accepted tokens are reported with their validation result, issued tokens with whether they were in time."""
    recorder = Recorder()
    application = BUILDERS[framework](settings_of(stock_cluster, hooks=[recorder]), {})
    async with application.running(), application.client() as client:
        await client.post("/write/commit")
        with paused(stock_cluster):
            await client.get("/read")
        await client.post("/write-late")
        async with application.client(cookies={"consistency-token": "rubbish"}) as stranger:
            await stranger.get("/read")
    assert [one.outcome for one in recorder.of(TokenSent)] == ["sent", "too_late"]
    assert [one.outcome for one in recorder.of(TokenReceived)] == ["accepted", "accepted", "malformed"]


async def test_events_without_a_request_are_passed_on() -> None:
    """A lifespan event has no unit of work."""
    passed = []

    async def app(scope: typing.Any, receive: typing.Any, send: typing.Any) -> None:
        passed.append((scope, receive, send))

    scope = {"type": "lifespan"}
    await DecisionMiddleware(app)(scope, typing.cast(typing.Any, "receive"), typing.cast(typing.Any, "send"))
    assert passed == [({"type": "lifespan"}, "receive", "send")]

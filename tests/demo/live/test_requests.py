"""The outcome of the demo's requests."""

import collections.abc
import typing

import fastapi
import httpx
import pytest

from modern_di_replicas.demo.live import requests
from modern_di_replicas.demo.live.requests import CountRequests, Requests


NAMES = {5001: "primary", 5002: "replica-1"}


def answer(reason: str = "GET", port: str = "5002", status: int = 200) -> fastapi.Response:
    return fastapi.Response(status_code=status, headers={"X-Server-Port": port, "X-Reason": reason})


@pytest.fixture
def counted() -> Requests:
    return Requests(NAMES, clock=lambda: 0.0)


@pytest.fixture
def app(counted: Requests) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    app.add_middleware(CountRequests, requests=counted)

    @app.get("/unrelated")
    async def unrelated() -> None: ...

    @app.get("/failing")
    async def failing() -> None:
        message = "no"
        raise LookupError(message)

    @app.get("/read")
    async def read() -> fastapi.Response:
        return answer()

    @app.put("/write")
    async def write() -> fastapi.Response:
        return fastapi.Response(status_code=503)

    @app.get("/nobody")
    async def nobody() -> fastapi.Response:
        return answer("GET", status=404)

    return app


async def test_requests_are_counted_by_the_server_that_answered_and_failures_by_intent(
    app: fastapi.FastAPI, counted: Requests
) -> None:
    """A 404 is an answer; a request that used no database is neither answered nor failed."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for method, path in (
            ("GET", "/read"),
            ("GET", "/read"),
            ("GET", "/nobody"),
            ("GET", "/unrelated"),
            ("PUT", "/write"),
            ("GET", "/failing"),
        ):
            await client.request(method, path)
    assert counted.answered == {"replica-1": 3}
    assert counted.failed == {"write": 1, "read": 1}
    assert list(counted.recent) == ["replica-1", "replica-1", "replica-1", "", ""]
    assert [(line.request, line.server, line.reason, line.count) for line in counted.lines] == [
        ("GET /failing", None, "LookupError", 1),
        ("PUT /write", None, "status 503", 1),
        ("GET /nobody", "replica-1", "GET", 1),
        ("GET /read", "replica-1", "GET", 2),
    ]


async def test_events_other_than_http_are_passed_on(counted: Requests) -> None:
    """A lifespan event has no status."""
    seen: list[str] = []

    async def app(scope: collections.abc.MutableMapping[str, object], *_: object) -> None:
        seen.append(str(scope["type"]))

    nothing = typing.cast(typing.Any, None)
    await CountRequests(app, counted)({"type": "lifespan"}, nothing, nothing)
    assert seen == ["lifespan"]


def test_the_same_decision_is_one_line_until_it_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a pause it is a new line at the top; only the last lines are kept."""
    now = [0.0]
    monkeypatch.setattr(requests, "ONE_AFTER_THE_OTHER", 5.0)
    counted = Requests(NAMES, clock=lambda: now[0])
    for at, port in ((0.0, 5002), (4.0, 5002), (8.0, 5001), (8.5, 5002), (20.0, 5002)):
        now[0] = at
        counted.note_answer("GET /read", port=port, reason="GET")
    assert [(line.server, line.count, line.at) for line in counted.lines] == [
        ("replica-1", 1, 20.0),
        ("primary", 1, 8.0),
        ("replica-1", 3, 8.5),
    ]
    for number in range(requests.SHOWN_DECISIONS):
        counted.note_answer(f"GET /{number}", port=5001, reason="GET")
    assert len(counted.lines) == requests.SHOWN_DECISIONS

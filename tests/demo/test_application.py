"""The demo's application, on real servers."""

import collections.abc
import contextlib

import httpx
import pytest

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.demo.application import UserRepository, create_application
from modern_di_replicas.demo.report import Report
from modern_di_replicas.testing import LocalCluster


ADA = {"name": "Ada Lovelace", "email": "ada@example.com"}


@contextlib.asynccontextmanager
async def running(settings: ReplicationSettings) -> collections.abc.AsyncIterator[httpx.AsyncClient]:
    app = create_application(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


async def test_writes_are_read_at_once(settings: ReplicationSettings, replicated_cluster: LocalCluster) -> None:
    """Includes every operation on a user; the test waits only for the front page, which is EVENTUAL."""
    async with running(settings) as client:
        created = await client.post("/users", json=ADA)
        assert created.status_code == 201
        user = created.json()
        read = await client.get(f"/users/{user['id']}")
        assert read.json() == user == {**ADA, "id": user["id"], "last_seen": None}
        assert (await client.head(f"/users/{user['id']}")).status_code == 200

        seen = await client.get("/me", headers={"X-User-Id": str(user["id"])})
        assert seen.json()["last_seen"] is not None
        changed = await client.put(f"/users/{user['id']}", json={**ADA, "name": "Ada King"})
        assert changed.json() == {**seen.json(), "name": "Ada King"}
        assert (await client.post("/search", json={"words": "kIn"})).json() == [changed.json()]
        assert (await client.post("/search", json={"words": "%"})).json() == []
        replicated_cluster.catch_up()
        assert (await client.get("/newest")).json() == [changed.json()]
        taken = [(await client.get("/taken", params={"email": email})).json() for email in (ADA["email"], "a@b")]
        assert taken == [True, False]

        assert (await client.delete(f"/users/{user['id']}")).status_code == 204
        assert (await client.post("/search", json={"words": ""})).json() == []


async def test_a_response_contains_the_servers_own_report(
    settings: ReplicationSettings, replicated_cluster: LocalCluster
) -> None:
    """The ports are those of the cluster, and the reasons those of the routing."""
    primary, first, last = replicated_cluster.servers
    async with running(settings) as client:
        user_id = (await client.post("/users", json=ADA)).json()["id"]
        replicated_cluster.catch_up()
        client.cookies.clear()  # clients that wrote nothing are served by any replica, in turn
        responses = [
            await client.get(f"/users/{user_id}"),
            await client.get("/newest"),
            await client.get("/me", headers={"X-User-Id": str(user_id)}),
        ]
        replicated_cluster.catch_up()
        responses += [
            await client.post("/search", json={"words": ""}),
            await client.get("/taken", params={"email": ""}),
            await client.get(f"/visits/{user_id}"),
        ]
    reports = [Report.from_headers(response.headers) for response in responses]
    assert [(report.port, report.in_recovery, report.server) for report in reports] == [
        (first.port, True, "replica-1"),
        (last.port, True, "replica-2"),
        (primary.port, False, "primary"),
        (last.port, True, "replica-2"),
        (primary.port, False, "primary"),
        (primary.port, False, "primary"),
    ]
    assert [(report.intent, report.marker, report.group, report.level) for report in reports] == [
        ("read", "", "", ""),
        ("read", "@read_intent", "", "EVENTUAL"),
        ("write", "@write_intent", "", ""),
        ("read", "@read_intent", "analytics", ""),
        ("read", "@read_intent", "", "STRONG"),
        ("read", "", "", ""),
    ]
    assert [report.has_token for report in reports] == [False, False, False, True, True, True]
    assert reports[-1].reason.startswith("GET, escalated")
    assert [report.reason for report in reports[:-1]] == [
        "GET",
        "@read_intent",
        "@write_intent",
        "@read_intent",
        "@read_intent, STRONG",
    ]


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [("GET", "/users/0", {}), ("DELETE", "/users/0", {}), ("GET", "/me", {"X-User-Id": "0"})],
)
async def test_an_unknown_user_is_404_and_the_response_names_its_server(
    settings: ReplicationSettings, method: str, path: str, headers: dict[str, str]
) -> None:
    """An error has the same headers as a success."""
    async with running(settings) as client:
        response = await client.request(method, path, headers=headers)
    assert response.status_code == 404
    assert response.json() == {"detail": "There is no such user."}
    assert Report.from_headers(response.headers).in_recovery is (path != "/me" and method == "GET")


async def test_an_email_address_belongs_to_one_user(settings: ReplicationSettings) -> None:
    """The curl line that adds a user can be sent twice, and the second response explains the conflict."""
    async with running(settings) as client:
        assert (await client.post("/users", json=ADA)).status_code == 201
        response = await client.post("/users", json=ADA)
    assert response.status_code == 409
    assert response.json() == {"detail": "That email address is taken."}
    assert Report.from_headers(response.headers).in_recovery is False


async def test_a_database_that_cannot_be_reached_is_503(
    settings: ReplicationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client may retry; the detail names the kind of error, and no address."""

    async def refuse(_: UserRepository) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(UserRepository, "newest", refuse)
    async with running(settings) as client:
        response = await client.get("/newest")
    assert response.status_code == 503
    assert response.json() == {"detail": "The database is not available (ConnectionRefusedError)."}

"""A client sees its own writes on every server, and replicas serve its reads again as soon as they can."""

import asyncio
import datetime as dt
import typing

import fastapi
import httpx
import pytest
from modern_di import Container

from modern_di_replicas import (
    EVENTUAL,
    SESSION,
    STRONG,
    Bounded,
    ConfigurationError,
    ConsistencyToken,
    Intent,
    PrimaryEngine,
    ReplicationSettings,
)
from modern_di_replicas.consistency.levels import Level
from modern_di_replicas.fastapi import Dependencies, setup_replicas
from modern_di_replicas.testing import LocalCluster
from tests.asgi.application import BUILDERS, NOT_WAYS, WAYS, Application, paused, settings_of
from tests.waiting import until


LEVELS: dict[str, Level | Bounded] = {
    "eventual": EVENTUAL,
    "session": SESSION,
    "strong": STRONG,
    "long": Bounded(dt.timedelta(hours=1)),
    "short": Bounded(dt.timedelta(milliseconds=100)),
}


@pytest.fixture(params=list(BUILDERS))
def application(request: pytest.FixtureRequest, stock_cluster: LocalCluster) -> Application:
    reads = {name: Intent.read(consistency=level) for name, level in LEVELS.items()}
    return BUILDERS[request.param](settings_of(stock_cluster), reads)


async def seen(client: httpx.AsyncClient, path: str = "/read") -> dict[str, typing.Any]:
    response = await client.get(path)
    response.raise_for_status()
    answer: dict[str, typing.Any] = response.json()
    return answer


@pytest.mark.parametrize("way", list(WAYS))
async def test_a_client_reads_its_writes_however_they_were_committed(
    application: Application, stock_cluster: LocalCluster, way: str
) -> None:
    """INVARIANT: while no replica has the write, the primary serves its client; replicas serve other clients."""
    async with application.running(), application.client() as writer, application.client() as other:
        before = (await seen(other))["amount"]
        with paused(stock_cluster):
            response = await writer.post(f"/write/{way}")

            assert response.is_success
            assert response.headers["set-cookie"].startswith("consistency-token=1.")
            assert response.headers["cache-control"] == "no-store"
            assert await seen(writer) == {"amount": before + 1, "replica": False}
            assert await seen(writer, "/core") == {"amount": before + 1, "replica": False}
            assert await seen(other) == {"amount": before, "replica": True}
            assert await seen(other, "/core") == {"amount": before, "replica": True}

        async def is_read_from_a_replica() -> bool:
            read = await seen(writer)
            assert read["amount"] == before + 1
            return bool(read["replica"])

        await until(is_read_from_a_replica)  # before its flush, a commit that did not wait for it is on no replica


@pytest.mark.parametrize("way", list(NOT_WAYS))
async def test_a_request_that_wrote_nothing_gets_no_token(application: Application, way: str) -> None:
    """A token without a write would only keep reads off the replicas."""
    async with application.running(), application.client() as client:
        response = await client.post(f"/write/{way}")
        reading = await client.get("/read")

    assert response.is_success
    assert "set-cookie" not in response.headers
    assert "set-cookie" not in reading.headers


async def test_each_level_keeps_its_guarantee(application: Application, stock_cluster: LocalCluster) -> None:
    """The same read five times after a write that no replica has; the bounded one changes as time passes."""
    async with application.running(), application.client() as writer:
        with paused(stock_cluster):
            await writer.post("/write/commit")
            await until_read(writer, "/read/short", replica=False)
            places = {name: (await seen(writer, f"/read/{name}"))["replica"] for name in LEVELS}

        assert places == {"eventual": True, "session": False, "strong": False, "long": True, "short": False}
        await until_read(writer, "/read/short", replica=True)
        await until_read(writer, "/read/session", replica=True)
        assert not (await seen(writer, "/read/strong"))["replica"]


async def until_read(client: httpx.AsyncClient, path: str, *, replica: bool) -> None:
    async def is_read_there() -> bool:
        return (await seen(client, path))["replica"] is replica

    await until(is_read_there)


async def test_a_cookie_is_for_the_server_alone_and_ends_by_itself(application: Application) -> None:
    """The page's scripts cannot read it, and browsers do not send it with cross-site POST requests."""
    async with application.running(), application.client() as client, application.client(scheme="https") as safe:
        plain, secure = [(await each.post("/write/commit")).headers["set-cookie"] for each in (client, safe)]

    attributes = {attribute.strip() for attribute in plain.split(";")[1:]}
    assert attributes == {"HttpOnly", "Max-Age=60", "Path=/", "SameSite=Lax"}
    assert {attribute.strip() for attribute in secure.split(";")[1:]} == {*attributes, "Secure"}


@pytest.mark.parametrize("path", ["/write-and-fail", "/write-and-break", "/stream"])
async def test_an_error_or_streamed_response_carries_the_token_as_well(
    application: Application, stock_cluster: LocalCluster, path: str
) -> None:
    """The write is committed, whatever the status of the response and however the response is produced."""
    async with application.running(), application.client() as writer:
        with paused(stock_cluster):
            response = await writer.post(path)

            assert "set-cookie" in response.headers
            assert not (await seen(writer))["replica"]


async def test_a_write_after_the_response_has_begun_is_counted(application: Application) -> None:
    """The client can no longer be informed; a counter informs the operator."""
    async with application.running(), application.client() as client:
        response = await client.post("/write-late")
        assert response.content == b"firstlast"
        assert "set-cookie" not in response.headers
        assert application.tokens.too_late == 1


@pytest.mark.parametrize("framework", list(BUILDERS))
async def test_a_header_carries_the_token_where_the_settings_say_so(
    framework: str, stock_cluster: LocalCluster
) -> None:
    """For clients that are not browsers, and that return the header themselves."""
    settings = settings_of(stock_cluster, token_carrier="header", token_name="X-Seen")  # no secrets
    application = BUILDERS[framework](settings, {})
    async with application.running(), application.client() as client:
        with paused(stock_cluster):
            response = await client.post("/write/commit")
            token = response.headers["x-seen"]

            assert "set-cookie" not in response.headers
            assert (await seen(client))["replica"]
            client.headers["X-Seen"] = token
            assert not (await seen(client))["replica"]
        reading = await client.get("/read")
    assert "x-seen" not in reading.headers


async def test_without_a_carrier_there_are_no_tokens(stock_cluster: LocalCluster) -> None:
    """The primary is not asked for positions that no client would return."""
    application = BUILDERS["fastapi"](settings_of(stock_cluster, token_carrier=None), {})
    async with application.running(), application.client() as client:
        with paused(stock_cluster):
            response = await client.post("/write/commit")
            assert "set-cookie" not in response.headers
            assert (await seen(client))["replica"]
        assert application.container.resolve(PrimaryEngine).writes is None


async def test_an_undeclared_read_has_the_level_of_the_settings(stock_cluster: LocalCluster) -> None:
    """A marker, an intent or the context takes precedence."""
    settings = settings_of(stock_cluster, consistency=STRONG)
    application = BUILDERS["fastapi"](settings, {"eventual": Intent.read(consistency=EVENTUAL)})
    async with application.running(), application.client() as client:
        assert not (await seen(client))["replica"]
        assert (await seen(client, "/read/eventual"))["replica"]


@pytest.mark.parametrize("secret", [None, "of both"])
async def test_a_token_of_one_worker_is_valid_in_every_other(stock_cluster: LocalCluster, secret: str | None) -> None:
    """INVARIANT: a worker that has not seen the write yet asks the primary instead of rejecting the token."""
    first, second = (
        BUILDERS["fastapi"](settings_of(stock_cluster, token_secret=secret, probe_interval=60.0), {}) for _ in range(2)
    )
    async with first.running(), second.running(), first.client() as writer, second.client() as reader:
        with paused(stock_cluster):
            before = await seen(reader)
            await writer.post("/write/commit")
            reader.cookies = writer.cookies

            assert before["replica"]
            assert await seen(reader) == {"amount": before["amount"] + 1, "replica": False}
            # A second write within the probe interval: the positions that replicas have received suffice.
            await writer.post("/write/commit")
            reader.cookies = writer.cookies
            assert await seen(reader) == {"amount": before["amount"] + 2, "replica": False}
        assert second.tokens.rejected.total() == 0
        await until_read(reader, "/read", replica=True)


async def test_a_read_waits_for_a_replica_that_is_nearly_there(stock_cluster: LocalCluster) -> None:
    """A short wait costs less than a read on the primary; the settings limit it."""
    application = BUILDERS["fastapi"](settings_of(stock_cluster, catch_up_wait=30.0), {})
    async with application.running(), application.client() as writer:
        with paused(stock_cluster):
            await writer.post("/write/commit")
            reading = asyncio.create_task(seen(writer))
            done, _ = await asyncio.wait({reading}, timeout=0.2)
            assert not done
        assert (await reading)["replica"]


async def test_a_replica_that_has_the_write_serves_while_another_has_not(stock_cluster: LocalCluster) -> None:
    """The balancer chooses among the replicas that are fresh enough."""
    application = BUILDERS["fastapi"](settings_of(stock_cluster, catch_up_wait=30.0), {})
    lagging = stock_cluster.replicas[0]
    stock_cluster.catch_up()
    async with application.running(), application.client() as writer:
        lagging.pause_replay()
        try:
            await writer.post("/write/commit")
            answers = [await seen(writer) for _ in range(10)]
        finally:
            lagging.resume_replay()
    assert all(answer["replica"] for answer in answers)
    assert len({answer["amount"] for answer in answers}) == 1


async def test_where_the_primary_is_not_to_read_a_read_that_no_replica_can_serve_is_an_error(
    stock_cluster: LocalCluster,
) -> None:
    """`primary_reads=False` protects the primary from these reads too; only STRONG asks for it explicitly."""
    reads = {"strong": Intent.read(consistency=STRONG)}
    application = BUILDERS["fastapi"](settings_of(stock_cluster, primary_reads=False), reads)
    async with application.running(), application.client() as writer:
        with paused(stock_cluster):
            await writer.post("/write/commit")
            assert [(await writer.get(path)).status_code for path in ("/read", "/core")] == [500, 500]
            assert not (await seen(writer, "/read/strong"))["replica"]


async def test_parallel_writes_of_one_client_leave_it_with_the_latest_token(
    application: Application, stock_cluster: LocalCluster
) -> None:
    """INVARIANT: the token of the last response includes the writes of all earlier ones."""
    async with application.running(), application.client() as client:
        with paused(stock_cluster):
            before = (await seen(client))["amount"]
            await asyncio.gather(*(client.post("/write/commit") for _ in range(20)))
            token = client.cookies["consistency-token"]
            assert await seen(client) == {"amount": before + 20, "replica": False}
        stock_cluster.catch_up()
        reached = stock_cluster.replicas[0].execute("SELECT pg_last_wal_replay_lsn() - '0/0'")
    assert ConsistencyToken.parse(token).lsn <= int(reached)


async def test_tokens_are_set_up_before_the_application_starts(stock_cluster: LocalCluster) -> None:
    """Afterwards Starlette has built its middleware stack, and no tokens would be issued."""
    settings = settings_of(stock_cluster)
    application = BUILDERS["fastapi"](settings, {})
    async with application.running(), application.client() as client:
        await client.get("/read")
    container = Container(groups=[Dependencies], context={ReplicationSettings: settings})
    with pytest.raises(ConfigurationError, match="before the application starts"):
        setup_replicas(typing.cast(fastapi.FastAPI, application.asgi), container)

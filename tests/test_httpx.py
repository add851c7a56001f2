"""Services that call each other: each reads the writes of the other for the same client."""

import collections.abc
import contextlib
import dataclasses
import typing

import fastapi
import httpx
import pytest
from modern_di import Container
from modern_di_fastapi import FromDI
from sqlalchemy.ext.asyncio import AsyncSession

import modern_di_replicas.fastapi
import modern_di_replicas.httpx
from modern_di_replicas import (
    ConsistencyToken,
    Intent,
    PrimaryEngine,
    ReplicationSettings,
    Tokens,
    current_token,
    read_intent,
    unit_of_work,
)
from modern_di_replicas.consistency.client import Client, request_of
from modern_di_replicas.testing import LocalCluster, create_database
from tests.carrying import (
    PRIMARY,
    REPLICA,
    caught_up,
    create_stock,
    in_own_task,
    read,
    replay_paused,
    settings_of,
    watched,
    write,
)


Session = typing.Annotated[AsyncSession, FromDI(AsyncSession)]


@contextlib.asynccontextmanager
async def called(settings: ReplicationSettings) -> collections.abc.AsyncIterator[tuple[fastapi.FastAPI, Container]]:
    """Run the called service, which reads and writes."""
    app = fastapi.FastAPI()

    @app.get("/")
    async def get(session: Session) -> tuple[int, bool]:
        return await read(session)

    @app.post("/")
    async def post(session: Session) -> None:
        await write(session)

    container = Container(groups=[modern_di_replicas.fastapi.Dependencies], context={ReplicationSettings: settings})
    modern_di_replicas.fastapi.setup_replicas(app, container)
    async with app.router.lifespan_context(app):
        yield app, container


@contextlib.asynccontextmanager
async def calling(
    settings: ReplicationSettings, service: fastapi.FastAPI
) -> collections.abc.AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Run the calling service; yield its client, and the client with which it calls."""
    app = fastapi.FastAPI()

    @app.post("/write-and-ask")
    async def write_and_ask(session: Session) -> tuple[int, bool]:
        await write(session)
        return typing.cast(tuple[int, bool], (await inner.get("/")).json())

    @app.post("/have-written")
    @read_intent
    async def have_written(container: typing.Annotated[Container, FromDI(Container)]) -> tuple[int, bool]:
        (await inner.post("/")).raise_for_status()
        return await read(container.resolve(AsyncSession))

    @app.get("/ask")
    async def ask() -> tuple[int, bool]:
        return typing.cast(tuple[int, bool], (await inner.get("/")).json())

    @app.get("/")
    async def get(session: Session) -> tuple[int, bool]:
        return await read(session)

    container = Container(groups=[modern_di_replicas.fastapi.Dependencies], context={ReplicationSettings: settings})
    modern_di_replicas.fastapi.setup_replicas(app, container)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(service),
            base_url="http://inner",
            event_hooks=modern_di_replicas.httpx.event_hooks(container),
        ) as inner,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://outer") as outer,
    ):
        yield outer, inner


async def answer(client: httpx.AsyncClient, method: str, path: str) -> typing.Any:
    response = await client.request(method, path)
    response.raise_for_status()
    return response.json()


@pytest.fixture
def stock(disposable_cluster: LocalCluster) -> LocalCluster:
    create_stock(disposable_cluster)
    return disposable_cluster


@pytest.mark.parametrize(
    "options",
    [{}, {"token_carrier": "header", "token_secret": "a secret"}],
    ids=["cookie", "signed header"],
)
async def test_services_read_each_others_writes_for_a_client(
    stock: LocalCluster, options: dict[str, typing.Any]
) -> None:
    """In the same request, and in the client's next one; other clients still use the replicas."""
    settings = settings_of(stock, **options)
    async with called(settings) as (service, _), calling(settings, service) as (client, inner):
        with replay_paused(stock):
            assert await answer(client, "POST", "/write-and-ask") == [1, PRIMARY]
            client.cookies.clear()
            assert await answer(client, "GET", "/ask") == [0, REPLICA], "another client"

            response = await client.post("/have-written")
            assert response.json() == [2, PRIMARY]
            if options:
                client.headers["consistency-token"] = response.headers["consistency-token"]
            assert await answer(client, "GET", "/") == [2, PRIMARY]
            assert await answer(client, "GET", "/ask") == [2, PRIMARY]
        await caught_up(stock)
        assert await answer(client, "GET", "/ask") == [2, REPLICA]
        assert list(inner.cookies) == ([] if options else ["consistency-token"])


async def test_a_token_of_another_database_is_ignored(stock: LocalCluster, replicated_cluster: LocalCluster) -> None:
    """In both directions: it says nothing about this database."""
    theirs, ours = settings_of(stock), create_database(replicated_cluster, "services")
    async with called(theirs) as (service, called_container), calling(ours, service) as (client, _):
        async with watched(ours) as container, container.resolve(PrimaryEngine).begin() as connection:
            await connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS stock (id int, amount int)")
            await connection.exec_driver_sql("TRUNCATE stock")
            await connection.exec_driver_sql("INSERT INTO stock VALUES (1, 0)")
        replicated_cluster.catch_up()
        with replay_paused(stock):
            assert await answer(client, "POST", "/write-and-ask") == [0, REPLICA]
            assert called_container.resolve(Tokens).rejected == {"foreign": 1}
            replicated_cluster.catch_up()
            client.cookies.clear()
            assert await answer(client, "POST", "/have-written") == [1, REPLICA]


async def test_an_unknown_position_asks_for_the_primary(stock: LocalCluster) -> None:
    """The sender of a job has not committed, and the job calls a service."""
    settings = settings_of(stock, token_secret="a secret")
    async with called(settings) as (service, _), calling(settings, service) as (_, inner):

        async def run() -> typing.Any:
            with request_of(Client(is_request=True, position_unknown=True)):
                return await answer(inner, "GET", "/")

        assert await in_own_task(run()) == [0, PRIMARY]


@dataclasses.dataclass
class Recorder:
    """A service that records request headers, and responds with given ones."""

    answer: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    seen: list[httpx.Headers] = dataclasses.field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request.headers)
        return httpx.Response(200, headers=self.answer)


@pytest.mark.parametrize("carrier", ["cookie", "header", None])
async def test_a_synchronous_client_carries_tokens_as_well(
    database: ReplicationSettings, carrier: typing.Literal["cookie", "header"] | None
) -> None:
    """Other headers and cookies are unchanged; without a carrier, no token is sent or accepted."""

    async def run() -> None:
        async with watched(dataclasses.replace(database, token_carrier=carrier)) as container:
            token = await container.resolve(Tokens).now()
            assert token is not None
            call_often(container, token, carrier)

    await in_own_task(run())


def call_often(container: Container, token: ConsistencyToken, carrier: str | None) -> None:
    """Call a service for clients with and without writes there."""
    text = container.resolve(Tokens).encode(token)
    in_cookies = [("set-cookie", "a=b; Path=/"), ("set-cookie", f"consistency-token={text}; Path=/")]
    service = Recorder(answer=in_cookies if carrier == "cookie" else [("consistency-token", text)])
    hooks = modern_di_replicas.httpx.sync_event_hooks(container)
    transport = httpx.MockTransport(service)
    with httpx.Client(transport=transport, base_url="http://inner", event_hooks=hooks) as client:
        client.get("/")
        assert text not in str(service.seen.pop().raw), "nothing was written here before"
        assert current_token() == (token if carrier else None)
        client.get("/")
        sent = service.seen.pop()
        assert sent.get("cookie") == (f"a=b; consistency-token={text}" if carrier == "cookie" else None)
        assert sent.get("consistency-token") == (text if carrier == "header" else None)

        with request_of(Client(is_request=True)):
            client.get("/")
        assert text not in str(service.seen.pop().raw), "another client, which has written nothing"
        if carrier == "cookie":
            client.cookies.delete("a")
            service.answer = []
            client.get("/")
            assert service.seen.pop()["cookie"] == f"consistency-token={text}"
            with request_of(Client(is_request=True)):
                client.get("/")
            assert "cookie" not in service.seen.pop()


async def test_a_unit_of_work_reads_a_services_writes_for_the_previous_one(stock: LocalCluster) -> None:
    """A script that calls a service is one client."""
    settings = settings_of(stock)
    async with called(settings) as (service, _), watched(settings) as container:
        hooks = modern_di_replicas.httpx.event_hooks(container)

        async def run() -> tuple[int, bool]:
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(service), base_url="http://inner", event_hooks=hooks
            ) as client:
                async with unit_of_work(container):
                    (await client.post("/")).raise_for_status()
                async with unit_of_work(container, intent=Intent.read()) as unit:
                    return await read(unit.resolve(AsyncSession))

        with replay_paused(stock):
            assert await in_own_task(run()) == (1, PRIMARY)

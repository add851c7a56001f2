import asyncio
import collections.abc
import json
import typing

import fastapi
import modern_di.exceptions
import modern_di_fastapi
import pytest
from modern_di import Container
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.fastapi import Dependencies, setup_replicas
from modern_di_replicas.testing import LocalCluster, RoutingLog, routing_log
from recipes.websocket.app import Base, Message, fastapi_app, litestar_app


MESSAGES: list[Message] = [
    {"article": "lamp", "delivered": 0},
    {"article": "lamp", "delivered": 7},
    {"article": "lamp", "delivered": 0},
]


async def exchange(app: typing.Any, messages: list[Message]) -> list[int]:
    """Open a websocket, send each message after the previous one is answered, and return the answers."""
    answers: list[int] = []
    answered = asyncio.Semaphore(1)
    incoming: collections.abc.Iterator[dict[str, typing.Any]] = iter(
        [
            {"type": "websocket.connect"},
            *({"type": "websocket.receive", "text": json.dumps(message)} for message in messages),
            {"type": "websocket.disconnect", "code": 1000},
        ]
    )

    async def receive() -> dict[str, typing.Any]:
        await answered.acquire()
        return next(incoming)

    async def send(message: dict[str, typing.Any]) -> None:
        if message["type"] == "websocket.send":
            answers.append(json.loads(message.get("text") or message["bytes"]))
        answered.release()

    scope = {"type": "websocket", "path": "/stock", "query_string": b"", "headers": [], "subprotocols": []}
    lifespan = app.router.lifespan_context(app) if isinstance(app, fastapi.FastAPI) else app.lifespan()
    async with lifespan:
        await app(scope, receive, send)
    return answers


@pytest.mark.parametrize("build", [fastapi_app, litestar_app])
async def test_each_message_is_a_unit_of_work(
    build: typing.Any,
    database: ReplicationSettings,
    replicated_cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A question reads from a replica, a delivery writes, and the next question on the socket sees it."""
    monkeypatch.setenv("PRIMARY_URL", database.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replica.url for replica in database.servers))
    owner = create_async_engine(database.declared_primary.url)
    async with owner.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await owner.dispose()
    replicated_cluster.catch_up()
    log: RoutingLog
    with routing_log() as log:
        assert await exchange(build(), MESSAGES) == [0, 7, 7]
    assert log.servers[0] != "primary"
    assert "primary" in log.servers[1:]


async def test_a_session_of_the_connection_itself_is_refused() -> None:
    """`FromDI(AsyncSession)` in a websocket handler: troubleshooting/scope-not-initialized-error has the remedy."""
    app = fastapi.FastAPI()

    @app.websocket("/stock")
    async def stock(
        socket: fastapi.WebSocket, session: typing.Annotated[AsyncSession, modern_di_fastapi.FromDI(AsyncSession)]
    ) -> None:
        raise AssertionError(socket, session)

    settings = ReplicationSettings(primary="postgresql+asyncpg://app@127.0.0.1:9/stock")
    setup_replicas(app, Container(groups=[Dependencies], context={ReplicationSettings: settings}))
    with pytest.raises(modern_di.exceptions.ScopeNotInitializedError):
        await exchange(app, [])

"""One worker process: an application with registers, over this library or over what people write by hand.

`python -m tests.history.application <WorkerSettings as JSON>`, run by `workers`. It prints its port, and ends when its
standard input does: it never outlives its parent process.
"""

import asyncio
import dataclasses
import datetime as dt
import json
import logging
import os
import socket
import sys
import typing
from typing import Annotated

import fastapi
import uvicorn
from modern_di import Container, Scope, providers
from modern_di_fastapi import FromDI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from modern_di_replicas import Bounded, Intent, Replica, ReplicationSettings, declared_intent, read_intent
from modern_di_replicas.consistency.client import Client, Write
from modern_di_replicas.consistency.token import ConsistencyToken
from modern_di_replicas.fastapi import Dependencies, request_intent, setup_replicas
from tests.history.interrupted import Interruption, interrupt_commits, interrupted
from tests.history.recipe import Recipe


FLASK: typing.Final = "flask"
"""This library in synchronous code: see `threaded`."""
OURS: typing.Final = ("ours", FLASK)
VARIANTS: typing.Final = (*OURS, "naive", "pin")
FORGETFUL: typing.Final = "forgetful"
"""This library with an injected bug: a commit that raised an error does not count as a write."""

WRITE: typing.Final = text(
    "UPDATE registers SET value = value + 1 WHERE key = :key RETURNING value, inet_server_port(), pg_is_in_recovery()"
)
READ: typing.Final = text("SELECT value, inet_server_port(), pg_is_in_recovery() FROM registers WHERE key = :key")
"""One statement each, so that the value and the port are from the same server."""

Answer = tuple[int, int, bool]


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class WorkerSettings:
    """The settings of a worker."""

    variant: str
    primary: str
    replicas: list[str]
    lag: float
    """Maximum age of a bounded read, in seconds."""
    pin: float
    """Seconds for which a client reads from the primary after a write, with the variant `pin`."""


async def _execute(session: AsyncSession | AsyncConnection, statement: typing.Any, key: str) -> Answer:
    value, port, in_recovery = (await session.execute(statement, {"key": key})).one()
    return value, port, in_recovery


def affine_intent(container: Container, declared: Intent | None, request: fastapi.Request | None = None) -> Intent:
    """Return the built-in intent, with an affinity per client."""
    intent = request_intent(container, declared, request)
    return intent if request is None else dataclasses.replace(intent, affinity=request.headers.get("x-client"))


class AffineDependencies(Dependencies):
    intent = providers.Factory(affine_intent, scope=Scope.REQUEST, cache=True, kwargs={"declared": declared_intent})


def build_ours(settings: WorkerSettings) -> fastapi.FastAPI:
    """Return the application that uses this library; its handlers contain no routing code."""
    replication = ReplicationSettings(
        primary=settings.primary,
        replicas=[Replica(url) for url in settings.replicas],
        max_lag=dt.timedelta(seconds=2),
        probe_timeout=2.0,  # on a busy machine, the lag may exceed a second without a fault
        primary_pool_size=20,
        primary_pool_timeout=5.0,
        replica_pool_size=20,
        connect_args=interrupt_commits(settings.primary),
    )
    container = Container(groups=[AffineDependencies], context={ReplicationSettings: replication})
    app = fastapi.FastAPI(debug=True)  # responds to an error with its traceback
    sessions = Annotated[AsyncSession, FromDI(AsyncSession)]

    @app.post("/registers/{key}")
    async def write(key: str, session: sessions, commit: Interruption = "") -> Answer:
        answer = await _execute(session, WRITE, key)
        async with interrupted(commit):
            await session.commit()
        return answer

    @app.get("/registers/{key}")
    async def read(key: str, session: sessions) -> Answer:
        return await _execute(session, READ, key)

    @app.get("/bounded/{key}")
    @read_intent(consistency=Bounded(dt.timedelta(seconds=settings.lag)))
    async def read_bounded(key: str, session: sessions) -> Answer:
        return await _execute(session, READ, key)

    setup_replicas(app, container)
    return app


def build_recipe(settings: WorkerSettings) -> fastapi.FastAPI:
    """Return the same application with a hand-written recipe."""
    recipe = Recipe(
        settings.primary, settings.replicas, pin=settings.pin if settings.variant == "pin" else 0.0, pool_size=20
    )
    app = fastapi.FastAPI(lifespan=recipe.lifespan)

    @app.post("/registers/{key}")
    async def write(key: str, request: fastapi.Request, response: fastapi.Response) -> Answer:
        async with recipe.engine(request).begin() as connection:
            answer = await _execute(connection, WRITE, key)
        recipe.wrote(response)
        return answer

    @app.get("/registers/{key}")
    @app.get("/bounded/{key}")
    async def read(key: str, request: fastapi.Request) -> Answer:
        async with recipe.engine(request).connect() as connection:
            return await _execute(connection, READ, key)

    return app


async def serve(app: fastapi.FastAPI) -> None:
    """Serve an application until standard input ends."""
    config = uvicorn.Config(
        app,
        ws="none",
        access_log=False,
        log_config=None,
        lifespan="on",
        timeout_keep_alive=600,  # a client would count a closed connection as a failure
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():  # noqa: ASYNC110  # uvicorn announces it in no other way
            await asyncio.sleep(0.01)
        print(listener.getsockname()[1], flush=True)  # noqa: T201  # for the parent process
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = True
        await serving


def forget_commits_without_answer() -> None:
    """Inject a bug: only a successful commit counts as a write."""

    def begin_write(client: Client) -> Write:
        return Write(client)  # it is not recorded

    def known(write: Write, token: ConsistencyToken) -> None:
        write.client._open.add(write)  # noqa: SLF001  # the bug
        settle(write, token)

    settle = Write.known
    typing.cast(typing.Any, Client).begin_write = begin_write
    typing.cast(typing.Any, Write).known = known


def main(given: str) -> None:
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s.%(msecs)03d {os.getpid()} %(message)s")
    settings = WorkerSettings(**json.loads(given))
    if settings.variant == FORGETFUL:
        forget_commits_without_answer()
    is_ours = settings.variant in ("ours", FORGETFUL)
    asyncio.run(serve(build_ours(settings) if is_ours else build_recipe(settings)))


if __name__ == "__main__":
    main(sys.argv[1])

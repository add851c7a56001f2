"""The same application in both frameworks, so that both are tested for the same behaviour.

Every route returns what the server that ran its statements reports about itself.
"""

import asyncio
import collections.abc
import contextlib
import dataclasses
import json
import typing
from typing import Annotated

import fastapi
import httpx
import litestar
import modern_di_fastapi
import modern_di_litestar
import modern_di_starlette
from litestar.di import NamedDependency
from modern_di import Container, Group, Scope, providers
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

import modern_di_replicas.fastapi
import modern_di_replicas.litestar
import modern_di_replicas.starlette
from modern_di_replicas import Intent, ReplicationSettings, RoutedSession, read_intent, write_intent


Method = typing.Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
METHODS: tuple[Method, ...] = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
WHERE = text("SELECT inet_server_port(), pg_is_in_recovery()")
# Slow on the server, so that a cancelled request is cancelled during a statement.
SLOW = text("SELECT pg_sleep(0.05)")


class Broken(Exception):  # noqa: N818  # what a handler raises; it is not part of any interface
    """The error that failing handlers raise."""


class Places:
    """A repository that returns which server ran each of its statements."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def visit(self, times: int = 1) -> dict[str, typing.Any]:
        visited = [tuple((await self.session.execute(WHERE)).one()) for _ in range(times)]
        assert len(set(visited)) == 1, "the statements of one unit of work ran on several servers"
        port, in_recovery = visited[0]
        return {"port": port, "replica": in_recovery}

    async def visit_and_write(self) -> dict[str, typing.Any]:
        await self.session.execute(text("CREATE TEMPORARY TABLE visit (n int) ON COMMIT DROP"))
        return await self.visit()

    async def fail(self) -> None:
        await self.visit()
        raise Broken

    async def dawdle(self) -> dict[str, typing.Any]:
        await self.session.execute(SLOW)
        return await self.visit()


class Repositories(Group):
    places = providers.Factory(Places, scope=Scope.REQUEST)


@dataclasses.dataclass(kw_only=True)
class Application:
    """One application under test, with its container and a client."""

    asgi: Starlette | litestar.Litestar
    container: Container

    @contextlib.asynccontextmanager
    async def running(self) -> collections.abc.AsyncIterator[httpx.AsyncClient]:
        """Start the application, yield a client, and stop the application."""
        app = self.asgi
        lifespan = app.router.lifespan_context(app) if isinstance(app, Starlette) else app.lifespan()
        transport = httpx.ASGITransport(typing.cast(typing.Any, app), raise_app_exceptions=False)
        async with lifespan, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client

    async def received(self, path: str) -> list[typing.Any]:
        """Open a websocket, and return the JSON messages up to its close."""
        messages: list[typing.Any] = []

        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        async def send(message: collections.abc.MutableMapping[str, typing.Any]) -> None:
            if message["type"] == "websocket.send":
                messages.append(json.loads(message.get("text") or message["bytes"]))

        scope = {"type": "websocket", "path": path, "query_string": b"", "headers": [], "subprotocols": []}
        await typing.cast(typing.Any, self.asgi)(scope, receive, send)
        return messages


def where(response: httpx.Response) -> dict[str, typing.Any]:
    """Return the server a route reports; also in a header, because a HEAD response has no body."""
    response.raise_for_status()
    return {"port": int(response.headers["x-port"]), "replica": response.headers["x-replica"] == "True"}


def headers(place: dict[str, typing.Any]) -> dict[str, str]:
    return {f"x-{key}": str(value) for key, value in place.items()}


def build_fastapi(  # noqa: C901  # one function for each route, and the routes are the point
    settings: ReplicationSettings, group: type[Group] | None = None
) -> Application:
    container = Container(
        groups=[group or modern_di_replicas.fastapi.Dependencies, Repositories], context={ReplicationSettings: settings}
    )
    app = fastapi.FastAPI()
    visitors = Annotated[Places, modern_di_fastapi.FromDI(Places)]

    @app.api_route("/", methods=list(METHODS))
    async def root(places: visitors, response: fastapi.Response) -> None:
        response.headers.update(headers(await places.visit(3)))

    @app.get("/marked-below")
    @write_intent
    async def marked_below(places: visitors, response: fastapi.Response) -> None:
        response.headers.update(headers(await places.visit()))

    @write_intent()
    @app.get("/marked-above")
    async def marked_above(places: visitors, response: fastapi.Response) -> None:
        response.headers.update(headers(await places.visit()))

    @app.post("/marked-sync-below")
    @read_intent
    def marked_sync_below(engine: Annotated[AsyncEngine, modern_di_fastapi.FromDI(AsyncEngine)]) -> str:
        return str(engine.sync_engine.logging_name)

    @read_intent()
    @app.post("/marked-sync-above")
    def marked_sync_above(engine: Annotated[AsyncEngine, modern_di_fastapi.FromDI(AsyncEngine)]) -> str:
        return str(engine.sync_engine.logging_name)

    router = fastapi.APIRouter()

    @router.post("/search")
    @read_intent(group="analytics")
    async def search(places: visitors, response: fastapi.Response) -> None:
        response.headers.update(headers(await places.visit()))

    app.include_router(router, prefix="/router")

    sub = fastapi.FastAPI()

    @sub.get("/get")
    async def sub_get(places: visitors, response: fastapi.Response) -> None:
        response.headers.update(headers(await places.visit()))

    @sub.get("/marked")
    @write_intent
    async def sub_marked(places: visitors, response: fastapi.Response) -> None:
        response.headers.update(headers(await places.visit()))

    app.mount("/sub", sub)

    @app.get("/fail")
    @app.post("/fail")
    async def fail(places: visitors) -> None:
        await places.fail()

    @app.get("/dawdle")
    @app.post("/dawdle")
    async def dawdle(places: visitors) -> None:
        await places.dawdle()

    @app.get("/timeout")
    @app.post("/timeout")
    async def time_out(places: visitors) -> None:
        async with asyncio.timeout(0.01):
            await places.dawdle()

    @app.get("/types")
    async def types(
        engine: Annotated[AsyncEngine, modern_di_fastapi.FromDI(AsyncEngine)],
        session: Annotated[AsyncSession, modern_di_fastapi.FromDI(AsyncSession)],
    ) -> list[str]:
        assert isinstance(session, RoutedSession)
        return [type(engine).__name__, type(session).__name__]

    @app.websocket("/ws")
    async def websocket(
        socket: fastapi.WebSocket, connection: Annotated[Container, modern_di_fastapi.FromDI(Container)]
    ) -> None:
        await socket.accept()
        await socket.send_json(await visit_in_child(connection))
        await socket.send_json(await visit_in_child(connection, Intent.read()))
        await socket.close()

    @app.websocket("/ws-marked")
    @read_intent
    async def marked_websocket(
        socket: fastapi.WebSocket, connection: Annotated[Container, modern_di_fastapi.FromDI(Container)]
    ) -> None:
        await socket.accept()
        await socket.send_json(await visit_in_child(connection))
        await socket.close()

    modern_di_replicas.fastapi.setup_replicas(sub, container)
    modern_di_replicas.fastapi.setup_replicas(app, container)
    return Application(asgi=app, container=container)


def build_litestar(  # noqa: C901  # one function for each route, and the routes are the point
    settings: ReplicationSettings, group: type[Group] | None = None
) -> Application:
    container = Container(
        groups=[group or modern_di_replicas.litestar.Dependencies, Repositories],
        context={ReplicationSettings: settings},
    )

    @litestar.route("/", http_method=list(METHODS))
    async def root(places: NamedDependency[Places]) -> litestar.Response[None]:
        return litestar.Response(None, headers=headers(await places.visit(3)))

    @litestar.get("/marked-below")
    @write_intent
    async def marked_below(places: NamedDependency[Places]) -> litestar.Response[None]:
        return litestar.Response(None, headers=headers(await places.visit()))

    @write_intent()
    @litestar.get("/marked-above")
    async def marked_above(places: NamedDependency[Places]) -> litestar.Response[None]:
        return litestar.Response(None, headers=headers(await places.visit()))

    @litestar.post("/marked-sync-below", sync_to_thread=True)
    @read_intent
    def marked_sync_below(engine: NamedDependency[AsyncEngine]) -> str:
        return str(engine.sync_engine.logging_name)

    @read_intent()
    @litestar.post("/marked-sync-above", sync_to_thread=False)
    def marked_sync_above(engine: NamedDependency[AsyncEngine]) -> str:
        return str(engine.sync_engine.logging_name)

    @litestar.post("/search")
    @read_intent(group="analytics")
    async def search(places: NamedDependency[Places]) -> litestar.Response[None]:
        return litestar.Response(None, headers=headers(await places.visit()))

    class Sub(litestar.Controller):
        path = "/sub"
        opt = {"intent": Intent.write()}  # noqa: RUF012  # as Litestar's documentation writes it

        @litestar.get("/get")
        @read_intent
        async def get(self, places: NamedDependency[Places]) -> litestar.Response[None]:
            return litestar.Response(None, headers=headers(await places.visit()))

        @litestar.get("/marked")
        async def marked(self, places: NamedDependency[Places]) -> litestar.Response[None]:
            return litestar.Response(None, headers=headers(await places.visit()))

    @litestar.route("/fail", http_method=["GET", "POST"])
    async def fail(places: NamedDependency[Places]) -> None:
        await places.fail()

    @litestar.route("/dawdle", http_method=["GET", "POST"])
    async def dawdle(places: NamedDependency[Places]) -> None:
        await places.dawdle()

    @litestar.route("/timeout", http_method=["GET", "POST"])
    async def time_out(places: NamedDependency[Places]) -> None:
        async with asyncio.timeout(0.01):
            await places.dawdle()

    @litestar.get("/types")
    async def types(engine: NamedDependency[AsyncEngine], session: NamedDependency[AsyncSession]) -> list[str]:
        return [type(engine).__name__, type(session).__name__]

    @litestar.websocket("/ws")
    async def websocket(
        socket: litestar.WebSocket[typing.Any, typing.Any, typing.Any], di_container: NamedDependency[Container]
    ) -> None:
        await socket.accept()
        await socket.send_json(await visit_in_child(di_container))
        await socket.send_json(await visit_in_child(di_container, Intent.read()))
        await socket.close()

    @litestar.websocket("/ws-marked")
    @read_intent
    async def marked_websocket(
        socket: litestar.WebSocket[typing.Any, typing.Any, typing.Any], di_container: NamedDependency[Container]
    ) -> None:
        await socket.accept()
        await socket.send_json(await visit_in_child(di_container))
        await socket.close()

    app = litestar.Litestar(
        [
            root,
            marked_below,
            marked_above,
            marked_sync_below,
            marked_sync_above,
            litestar.Router("/router", route_handlers=[search]),
            Sub,
            fail,
            dawdle,
            time_out,
            types,
            websocket,
            marked_websocket,
        ],
        plugins=[modern_di_replicas.litestar.ReplicasPlugin(container, [Repositories])],
        dependencies={
            "engine": modern_di_litestar.FromDI(AsyncEngine),
            "session": modern_di_litestar.FromDI(AsyncSession),
        },
    )
    return Application(asgi=app, container=container)


def build_starlette(settings: ReplicationSettings, group: type[Group] | None = None) -> Application:  # noqa: C901  # one function for each route, and the routes are the point
    container = Container(
        groups=[group or modern_di_replicas.starlette.Dependencies, Repositories],
        context={ReplicationSettings: settings},
    )
    visitors = Annotated[Places, modern_di_starlette.FromDI(Places)]
    inject = modern_di_starlette.inject

    @inject
    async def root(_: Request, places: visitors) -> Response:
        return Response(headers=headers(await places.visit(3)))

    @inject
    @write_intent
    async def marked_below(_: Request, places: visitors) -> Response:
        return Response(headers=headers(await places.visit()))

    @write_intent
    @inject
    async def marked_above(_: Request, places: visitors) -> Response:
        return Response(headers=headers(await places.visit()))

    engine_of = Annotated[AsyncEngine, modern_di_starlette.FromDI(AsyncEngine)]

    @inject
    @read_intent
    def marked_sync_below(_: Request, engine: engine_of) -> Response:
        return JSONResponse(str(engine.sync_engine.logging_name))

    @read_intent()
    @inject
    def marked_sync_above(_: Request, engine: engine_of) -> Response:
        return JSONResponse(str(engine.sync_engine.logging_name))

    @inject
    @read_intent(group="analytics")
    async def search(_: Request, places: visitors) -> Response:
        return Response(headers=headers(await places.visit()))

    @inject
    async def fail(_: Request, places: visitors) -> Response:
        await places.fail()
        return Response()

    @inject
    async def dawdle(_: Request, places: visitors) -> Response:
        await places.dawdle()
        return Response()

    @inject
    async def time_out(_: Request, places: visitors) -> Response:
        async with asyncio.timeout(0.01):
            await places.dawdle()
        return Response()

    @inject
    async def types(
        _: Request,
        engine: engine_of,
        session: Annotated[AsyncSession, modern_di_starlette.FromDI(AsyncSession)],
    ) -> Response:
        assert isinstance(session, RoutedSession)
        return JSONResponse([type(engine).__name__, type(session).__name__])

    @inject
    async def websocket(
        socket: WebSocket, connection: Annotated[Container, modern_di_starlette.FromDI(Container)]
    ) -> None:
        await socket.accept()
        await socket.send_json(await visit_in_child(connection))
        await socket.send_json(await visit_in_child(connection, Intent.read()))
        await socket.close()

    @inject
    @read_intent
    async def marked_websocket(
        socket: WebSocket, connection: Annotated[Container, modern_di_starlette.FromDI(Container)]
    ) -> None:
        await socket.accept()
        await socket.send_json(await visit_in_child(connection))
        await socket.close()

    sub = Starlette(routes=[Route("/get", root), Route("/marked", marked_below)])
    both = ["GET", "POST"]
    app = Starlette(
        routes=[
            Route("/", root, methods=list(METHODS)),
            Route("/marked-below", marked_below),
            Route("/marked-above", marked_above),
            Route("/marked-sync-below", marked_sync_below, methods=["POST"]),
            Route("/marked-sync-above", marked_sync_above, methods=["POST"]),
            Mount("/router", routes=[Route("/search", search, methods=["POST"])]),
            Mount("/sub", sub),
            Route("/fail", fail, methods=both),
            Route("/dawdle", dawdle, methods=both),
            Route("/timeout", time_out, methods=both),
            Route("/types", types),
            WebSocketRoute("/ws", websocket),
            WebSocketRoute("/ws-marked", marked_websocket),
        ]
    )
    modern_di_replicas.starlette.setup_replicas(sub, container)
    modern_di_replicas.starlette.setup_replicas(app, container)
    return Application(asgi=app, container=container)


async def visit_in_child(container: Container, intent: Intent | None = None) -> dict[str, typing.Any]:
    """Visit in a separate unit of work, below the container of a websocket connection."""
    context = {} if intent is None else {Intent: intent}
    async with container.build_child_container(scope=Scope.REQUEST, context=context) as unit_of_work:
        return await unit_of_work.resolve(Places).visit()


BUILDERS = {"fastapi": build_fastapi, "litestar": build_litestar, "starlette": build_starlette}

"""Class-based endpoints, which only a Starlette application has."""

import typing

import httpx
import pytest
from modern_di import Container
from modern_di_starlette import FromDI, inject
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, Router

from modern_di_replicas import (
    ConfigurationError,
    Intent,
    ReplicationSettings,
    RoutedSession,
    UnknownGroupError,
    read_intent,
    write_intent,
)
from modern_di_replicas.intent import marked_intent
from modern_di_replicas.starlette import Dependencies, mark_routes, setup_replicas


Session = typing.Annotated[AsyncSession, FromDI(AsyncSession)]


class Book(HTTPEndpoint):
    @inject
    @write_intent
    async def get(self, request: Request, session: Session) -> Response:  # noqa: ARG002  # `inject` wants it
        return reason_of(session)

    @inject
    @read_intent
    async def post(self, request: Request, session: Session) -> Response:  # noqa: ARG002
        return reason_of(session)

    @inject
    async def put(self, request: Request, session: Session) -> Response:  # noqa: ARG002
        return reason_of(session)


def reason_of(session: AsyncSession) -> Response:
    assert isinstance(session, RoutedSession)
    reason = session.decision.reason
    return JSONResponse(reason, headers={"reason": reason})


def create_app(settings: ReplicationSettings, *routes: Route | Mount) -> Starlette:
    app = Starlette(routes=routes)
    setup_replicas(app, Container(groups=[Dependencies], context={ReplicationSettings: settings}))
    return app


async def test_each_method_of_a_class_based_endpoint_can_have_its_own_marker(
    database: ReplicationSettings,
) -> None:
    """Without a marker the HTTP method decides; the method for GET also serves HEAD."""
    app = create_app(database, Route("/", Book))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        reasons = {method: (await client.request(method, "/")).headers["reason"] for method in ("GET", "HEAD", "PUT")}
        assert reasons == {"GET": "@write_intent", "HEAD": "@write_intent", "PUT": "PUT"}
        assert (await client.post("/")).json().startswith("@read_intent")
        assert (await client.delete("/")).status_code == 405


def test_all_routes_of_a_router_can_be_marked_at_once() -> None:
    """Each method of a class; existing markers take precedence."""

    async def first(request: Request) -> None: ...

    class Second(HTTPEndpoint):
        async def get(self, request: Request) -> None: ...

        @read_intent(group="analytics")
        async def post(self, request: Request) -> None: ...

    router = Router(routes=[Route("/a", first), Mount("/b", routes=[Route("/", Second)])])
    mark_routes(router, write_intent)

    assert marked_intent(first) == marked_intent(Second.get) == Intent.write()
    assert marked_intent(Second.post) == Intent.read(group="analytics")


async def test_an_application_does_not_start_with_a_group_that_is_not_declared(database: ReplicationSettings) -> None:
    """Wherever the marker is."""

    class Report(HTTPEndpoint):
        @read_intent(group="analytics")
        async def get(self, request: Request) -> None: ...

    app = create_app(database, Route("/", Report))
    with pytest.raises(UnknownGroupError):
        async with app.router.lifespan_context(app):
            pass


async def test_an_application_that_has_started_is_not_set_up(database: ReplicationSettings) -> None:
    """Its middleware stack is already built."""
    app = Starlette()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        await client.get("/")
    with pytest.raises(ConfigurationError, match="before the application starts"):
        setup_replicas(app, Container(groups=[Dependencies], context={ReplicationSettings: database}))

"""Markers in a FastAPI application: on routers, on dependencies, and in places where they are refused."""

import typing

import fastapi
import pytest
from modern_di import Container
from starlette.applications import Starlette
from starlette.routing import Mount

from modern_di_replicas import ConfigurationError, Intent, ReplicationSettings, read_intent, write_intent
from modern_di_replicas.fastapi import Dependencies, mark_routes, setup_replicas
from modern_di_replicas.intent import marked_intent


SETTINGS = ReplicationSettings(primary="postgresql+asyncpg://app@127.0.0.1:9/shop")


def application(*routers: fastapi.APIRouter) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    for router in routers:
        app.include_router(router)
    setup_replicas(app, Container(groups=[Dependencies], context={ReplicationSettings: SETTINGS}))
    return app


async def start(app: fastapi.FastAPI) -> None:
    async with app.router.lifespan_context(app):
        pass


def test_all_routes_of_a_router_can_be_marked_at_once() -> None:
    """Routes of an included router too; an endpoint's own marker takes precedence."""
    outer, inner = fastapi.APIRouter(), fastapi.APIRouter()

    @outer.get("/a")
    async def first() -> None: ...

    @inner.get("/b")
    async def second() -> None: ...

    @outer.get("/c")
    @read_intent(group="analytics")
    async def third() -> None: ...

    outer.include_router(inner)
    outer.mount("/static", Starlette(routes=[Mount("/empty", routes=[])]))
    mark_routes(outer, write_intent)

    assert marked_intent(first) == marked_intent(second) == Intent.write()
    assert marked_intent(third) == Intent.read(group="analytics")


def of_a_parameter(marked: typing.Any) -> fastapi.APIRouter:
    router = fastapi.APIRouter()

    def between(value: typing.Annotated[int, fastapi.Depends(marked)]) -> int:
        return value

    @router.get("/")
    async def endpoint(value: typing.Annotated[int, fastapi.Depends(between)]) -> int:
        return value

    return router


def of_a_router(marked: typing.Any) -> fastapi.APIRouter:
    router = fastapi.APIRouter(dependencies=[fastapi.Depends(marked)])

    @router.get("/")
    async def endpoint() -> None: ...

    return router


@pytest.mark.parametrize("build", [of_a_parameter, of_a_router])
async def test_a_marked_dependency_is_refused_when_the_application_starts(build: typing.Any) -> None:
    """It would have no effect on the unit of work, whose intent is that of the endpoint."""

    @write_intent
    def marked() -> int:
        return 1

    with pytest.raises(ConfigurationError, match="mark that one") as caught:
        await start(application(build(marked)))
    assert caught.value.value is marked


async def test_dependencies_without_a_marker_are_accepted() -> None:
    """Functions, classes and the result of `FromDI`."""

    def plain() -> int:
        return 1

    await start(application(of_a_parameter(plain), of_a_router(plain)))

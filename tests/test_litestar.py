"""Markers in a Litestar application: on handlers, and in the `opt` of every layer."""

import typing

import litestar
import pytest
from modern_di import Container

from modern_di_replicas import ConfigurationError, Intent, ReplicationSettings, UnknownGroupError, read_intent
from modern_di_replicas.litestar import Dependencies, ReplicasPlugin, request_intent


SETTINGS = ReplicationSettings(primary="postgresql+asyncpg://app@127.0.0.1:9/shop")
OF_GROUP: dict[str, typing.Any] = {"intent": Intent.read(group="analytics")}


def container_of(**settings: typing.Any) -> Container:
    given = {"primary": SETTINGS.declared_primary.url, **settings}
    return Container(groups=[Dependencies], context={ReplicationSettings: ReplicationSettings(**given)})


def intent_of(handler: litestar.handlers.HTTPRouteHandler, *, method: str = "GET") -> Intent:
    """Return the intent of a request that a handler serves."""
    request = litestar.Request[typing.Any, typing.Any, typing.Any](
        {"type": "http", "method": method, "route_handler": handler}  # type: ignore[arg-type]  # what is read of it
    )
    return request_intent(container_of(), None, request)


def test_the_closest_marker_wins() -> None:
    """The handler's takes precedence over the controller's, the router's and the application's."""

    class Reports(litestar.Controller):
        opt = OF_GROUP

        @litestar.post("/of-controller")
        async def of_controller(self) -> None: ...

        @litestar.post("/of-handler", opt={"intent": Intent.write()})
        async def of_handler(self) -> None: ...

        @litestar.post("/marked")
        @read_intent
        async def marked(self) -> None: ...

    app = litestar.Litestar([litestar.Router("/router", route_handlers=[Reports])], opt={"intent": Intent.write()})
    intents = {
        handler.fn.__name__: intent_of(handler)
        for route in app.routes
        for handler in typing.cast(typing.Any, route).route_handlers
        if "router" in route.path
    }
    assert intents["of_controller"] == Intent.read(group="analytics")
    assert intents["of_handler"] == Intent.write()
    assert intents["marked"] == Intent.read()


@pytest.mark.parametrize(("method", "is_write"), [("GET", False), ("POST", True)])
def test_without_a_marker_the_method_decides(method: str, is_write: bool) -> None:
    """As in every framework."""

    @litestar.route("/", http_method=["GET", "POST"])
    async def plain() -> None: ...

    assert intent_of(plain, method=method).is_write is is_write


def test_outside_a_request_a_unit_of_work_writes_unless_declared() -> None:
    """The declaration in its context takes precedence."""
    with container_of() as container:
        assert request_intent(container, None).is_write
        assert request_intent(container, Intent.read()) == Intent.read()


async def test_an_opt_that_is_not_an_intent_is_an_error_at_the_start() -> None:
    """Before any request, as for a group that no replica declares."""

    @litestar.get("/", opt={"intent": "read"})
    async def wrong() -> None: ...

    @litestar.get("/", opt=OF_GROUP)
    async def unknown() -> None: ...

    replicas = ["postgresql+asyncpg://app@127.0.0.2:9/shop"]
    for handler, error in ((wrong, ConfigurationError), (unknown, UnknownGroupError)):
        app = litestar.Litestar([handler], plugins=[ReplicasPlugin(container_of(replicas=replicas))])
        # Litestar starts in a task group, which raises its errors as an exception group.
        with pytest.raises((error, ExceptionGroup)) as caught:
            async with app.lifespan():
                pass
        assert caught.errisinstance(error) or caught.group_contains(error)

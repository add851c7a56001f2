"""Starlette: the intent comes from the request, and one call sets up the application.

Integrations of frameworks on top of Starlette can use it, as `modern_di_replicas.fastapi` does: `prepare` does all but
modern-di's own set-up.
"""

import collections.abc
import contextlib
import typing

from modern_di import Container, Scope, providers
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import BaseRoute, Router
from starlette.types import Lifespan
from starlette.websockets import WebSocket

from modern_di_replicas import dependencies
from modern_di_replicas.asgi.middleware import TokenMiddleware, TokenState
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.integration import check_container, declared_intent
from modern_di_replicas.intent import Intent, marked_intent, resolve_intent


METHODS: typing.Final = ("get", "head", "options", "post", "put", "patch", "delete")
"""The methods of an `HTTPEndpoint` that serve requests."""


def request_intent(container: Container, declared: Intent | None, request: Request | None = None) -> Intent:
    """Return the intent of a unit of work: declared in its context, by its endpoint's marker, or by the HTTP method.

    Each method of an `HTTPEndpoint` has its own marker. A websocket, and a unit of work outside any request, writes
    unless declared otherwise.
    """
    connection = dependencies.enclosing_connection(container, WebSocket) if request is None else request
    endpoint = connection.scope.get("endpoint") if connection is not None else None
    if isinstance(endpoint, type) and request is not None:
        method = request.method.lower()
        # In Starlette, `get` serves HEAD unless there is `head`.
        found = getattr(endpoint, method, None) or (getattr(endpoint, "get", None) if method == "head" else None)
        endpoint = found or endpoint
    return resolve_intent(
        declared=declared,
        endpoint=endpoint,
        marked=marked_intent(endpoint),
        method=request.method if request is not None else None,
    )


class Dependencies(dependencies.Dependencies):
    """The providers for Starlette; see `modern_di_replicas.Dependencies`."""

    intent = providers.Factory(request_intent, scope=Scope.REQUEST, cache=True, kwargs={"declared": declared_intent})


def setup_replicas(app: Starlette, container: Container) -> Container:
    """Set up an application: `modern_di_starlette.setup_di`, the monitor, and the tokens of clients.

    Args:
        app: the application, or a mounted sub-application, which is set up with the same container.
        container: holds `Dependencies` (or a subclass) and `context={ReplicationSettings: ...}`.

    Raises:
        ConfigurationError: the container does not hold `Dependencies`; or, when the application starts, a server
            refuses the user, the password or the database of its URL.
        UnknownGroupError: when the application starts, a marker names a group that no replica declares.

    """
    import modern_di_starlette  # noqa: PLC0415  # what FastAPI needs of this module does without

    prepare(app, container, Dependencies)
    return modern_di_starlette.setup_di(app, container)


def prepare(
    app: Starlette,
    container: Container,
    group: type[dependencies.Dependencies],
    *,
    check: collections.abc.Callable[[BaseRoute], None] = lambda _: None,
) -> None:
    """Let an application monitor the servers, and accept the tokens of its clients, while it runs.

    Args:
        app: the application.
        container: its container, which must be opened before the lifespan that this adds.
        group: the providers that the container has to hold.
        check: called with each route when the application starts; raises if one is not usable.

    Raises:
        ConfigurationError: the container does not hold the providers, or the application has started.

    """
    check_container(container, group)
    state = TokenState()
    app.router.lifespan_context = _watch_servers(app.router.lifespan_context, container, state, check)
    _add_outermost(app, state)


def _add_outermost(app: Starlette, state: TokenState) -> None:
    """Add the middleware outside of Starlette's own one, which answers unhandled exceptions with a 500."""
    if app.middleware_stack is not None:
        raise ConfigurationError(
            field="app", value=app, remedy="call setup_replicas before the application starts, or serves a request"
        )
    build = app.build_middleware_stack
    # Replaces a method of one object: `add_middleware` adds inside of that middleware.
    typing.cast(typing.Any, app).build_middleware_stack = lambda: TokenMiddleware(build(), state)


def _watch_servers(
    original: Lifespan[typing.Any],
    container: Container,
    state: TokenState,
    check: collections.abc.Callable[[BaseRoute], None],
) -> Lifespan[typing.Any]:
    @contextlib.asynccontextmanager
    async def watched(
        app: Starlette,
    ) -> collections.abc.AsyncIterator[collections.abc.Mapping[str, typing.Any] | None]:
        async with (
            dependencies.monitored(container, list(_marked_intents(app.routes, check)), state),
            original(app) as lifespan_state,
        ):
            yield lifespan_state

    # A lifespan yields nothing or a mapping; Starlette has no name for the union of the two.
    return typing.cast(Lifespan[typing.Any], watched)


def mark_routes(router: Router | Starlette, marker: collections.abc.Callable[[typing.Any], object]) -> None:
    """Mark the current endpoints of a router, and of the routers included in it.

    An endpoint that is already marked keeps its marker.

    Args:
        router: the router; call this once its routes are declared.
        marker: `read_intent`, `write_intent`, or the result of `read_intent(group=...)`.

    """
    for route in _all_routes(router.routes):
        for endpoint in _endpoints(route):
            if marked_intent(endpoint) is None:
                marker(endpoint)


def _marked_intents(
    routes: collections.abc.Iterable[BaseRoute], check: collections.abc.Callable[[BaseRoute], None]
) -> collections.abc.Iterator[Intent]:
    for route in _all_routes(routes):
        check(route)
        yield from filter(None, map(marked_intent, _endpoints(route)))


def _all_routes(routes: collections.abc.Iterable[BaseRoute]) -> collections.abc.Iterator[typing.Any]:
    for route in routes:
        yield route
        # A mount has its own routes; a router that FastAPI includes lazily is in `original_router`.
        inner = getattr(route, "original_router", route)
        yield from _all_routes(getattr(inner, "routes", None) or ())


def _endpoints(route: BaseRoute) -> collections.abc.Iterator[typing.Any]:
    endpoint = getattr(route, "endpoint", None)
    if not isinstance(endpoint, type):
        yield from [] if endpoint is None else [endpoint]
        return
    for method in METHODS:
        if (found := getattr(endpoint, method, None)) is not None:
            yield found

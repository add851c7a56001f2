"""FastAPI: the intent comes from the request, and one call sets the application up."""

import collections.abc
import contextlib
import typing

import fastapi
import modern_di_fastapi
from modern_di import Container, Scope, providers
from starlette.routing import BaseRoute
from starlette.types import Lifespan

from modern_di_replicas import dependencies
from modern_di_replicas.asgi.middleware import TokenMiddleware, TokenState
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.intent import Intent, marked_intent, resolve_intent


def request_intent(container: Container, declared: Intent | None, request: fastapi.Request | None = None) -> Intent:
    """Return the intent of a unit of work: what its context declares, its endpoint's marker, or its HTTP method.

    A websocket, and a unit of work outside any request, writes unless declared otherwise.
    """
    connection = dependencies.enclosing_connection(container, fastapi.WebSocket) if request is None else request
    endpoint = connection.scope.get("endpoint") if connection is not None else None
    return resolve_intent(
        declared=declared,
        endpoint=endpoint,
        marked=marked_intent(endpoint),
        method=request.method if request is not None else None,
    )


class Dependencies(dependencies.Dependencies):
    """The providers for FastAPI; see `modern_di_replicas.Dependencies`."""

    intent = providers.Factory(
        request_intent, scope=Scope.REQUEST, cache=True, kwargs={"declared": dependencies.declared_intent}
    )


def setup_replicas(app: fastapi.FastAPI, container: Container) -> Container:
    """Set an application up: `modern_di_fastapi.setup_di`, the servers watched, and the tokens of clients taken.

    Args:
        app: the application, or a mounted sub-application, which is set up with the same container.
        container: holds `Dependencies` (or a subclass) and `context={ReplicationSettings: ...}`.

    Raises:
        ConfigurationError: the container does not hold `Dependencies`; or, when the application starts, a dependency
            is marked, or a server refuses the user, the password or the database of its URL.
        UnknownGroupError: when the application starts, a marker names a group that no replica declares.

    """
    dependencies.check_container(container, Dependencies)
    state = TokenState()
    app.router.lifespan_context = _watch_servers(app.router.lifespan_context, container, state)
    _add_outermost(app, state)
    return modern_di_fastapi.setup_di(app, container)


def _add_outermost(app: fastapi.FastAPI, state: TokenState) -> None:
    """Add the middleware outside of Starlette's own, which answers exceptions that no handler takes with a 500."""
    if app.middleware_stack is not None:
        raise ConfigurationError(
            field="app", value=app, remedy="call setup_replicas before the application starts, or serves a request"
        )
    build = app.build_middleware_stack
    # A method of one object is replaced: `add_middleware` adds inside of that one.
    typing.cast(typing.Any, app).build_middleware_stack = lambda: TokenMiddleware(build(), state)


def _watch_servers(
    original: Lifespan[fastapi.FastAPI], container: Container, state: TokenState
) -> Lifespan[fastapi.FastAPI]:
    @contextlib.asynccontextmanager
    async def watched(
        app: fastapi.FastAPI,
    ) -> collections.abc.AsyncIterator[collections.abc.Mapping[str, typing.Any] | None]:
        async with (
            dependencies.monitored(container, list(_marked_intents(app.routes)), state),
            original(app) as lifespan_state,
        ):
            yield lifespan_state

    # A lifespan yields nothing or a mapping; the union of the two has no name of its own in Starlette.
    return typing.cast(Lifespan[fastapi.FastAPI], watched)


def mark_routes(router: fastapi.APIRouter, marker: collections.abc.Callable[[typing.Any], object]) -> None:
    """Mark the endpoints that a router has now, those of the routers included in it too.

    An endpoint that has a marker of its own keeps it.

    Args:
        router: the router; call this once its routes are declared.
        marker: `read_intent`, `write_intent`, or what `read_intent(group=...)` returns.

    """
    for route in _all_routes(router.routes):
        endpoint = getattr(route, "endpoint", None)
        if endpoint is not None and marked_intent(endpoint) is None:
            marker(endpoint)


def _marked_intents(routes: collections.abc.Iterable[BaseRoute]) -> collections.abc.Iterator[Intent]:
    for route in _all_routes(routes):
        _check_dependencies(route)
        intent = marked_intent(getattr(route, "endpoint", None))
        if intent is not None:
            yield intent


def _all_routes(routes: collections.abc.Iterable[BaseRoute]) -> collections.abc.Iterator[typing.Any]:
    for route in routes:
        yield route
        # A mount has routes of its own; a router that FastAPI includes lazily is behind its `original_router`.
        inner = getattr(route, "original_router", route)
        yield from _all_routes(getattr(inner, "routes", None) or ())


def _check_dependencies(route: typing.Any) -> None:  # noqa: ANN401  # routes of FastAPI and Starlette
    """Check that no dependency of a route is marked: only its endpoint can be.

    Raises:
        ConfigurationError: one is.

    """
    router = getattr(route, "original_router", route)
    given = [one.dependency for one in getattr(router, "dependencies", None) or ()]
    for call in (*given, *_dependencies(getattr(route, "dependant", None))):
        if marked_intent(call) is not None:
            raise ConfigurationError(
                field="the handler of a marker",
                value=call,
                remedy="it is a dependency, and the unit of work is that of the endpoint: mark that one",
            )


def _dependencies(dependant: typing.Any) -> collections.abc.Iterator[object]:  # noqa: ANN401  # moved between releases
    for inner in getattr(dependant, "dependencies", ()):
        yield inner.call
        yield from _dependencies(inner)

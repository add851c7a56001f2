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
        ConfigurationError: the container does not hold `Dependencies`; or, when the application starts, a server
            refuses the user, the password or the database of its URL.
        UnknownGroupError: when the application starts, a marker names a group that no replica declares.

    """
    dependencies.check_container(container, Dependencies)
    state = TokenState()
    app.router.lifespan_context = _watch_servers(app.router.lifespan_context, container, state)
    app.add_middleware(TokenMiddleware, state=state)
    return modern_di_fastapi.setup_di(app, container)


def _watch_servers(
    original: Lifespan[fastapi.FastAPI], container: Container, state: TokenState
) -> Lifespan[fastapi.FastAPI]:
    @contextlib.asynccontextmanager
    async def watched(
        app: fastapi.FastAPI,
    ) -> collections.abc.AsyncIterator[collections.abc.Mapping[str, typing.Any] | None]:
        async with (
            dependencies.monitored(container, _marked_intents(app.routes), state),
            original(app) as lifespan_state,
        ):
            yield lifespan_state

    # A lifespan yields nothing or a mapping; the union of the two has no name of its own in Starlette.
    return typing.cast(Lifespan[fastapi.FastAPI], watched)


def _marked_intents(routes: collections.abc.Iterable[BaseRoute]) -> collections.abc.Iterator[Intent]:
    for route in routes:
        intent = marked_intent(getattr(route, "endpoint", None))
        if intent is not None:
            yield intent
        # A mount has routes of its own; a router that FastAPI includes lazily is behind its `original_router`.
        inner = getattr(route, "original_router", route)
        yield from _marked_intents(getattr(inner, "routes", None) or ())

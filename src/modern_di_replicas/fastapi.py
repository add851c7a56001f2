"""FastAPI: the intent comes from the request, and one call sets up the application."""

import collections.abc
import typing

import fastapi
import modern_di_fastapi
from modern_di import Container

from modern_di_replicas import starlette
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.intent import marked_intent
from modern_di_replicas.starlette import mark_routes, request_intent


__all__ = ["Dependencies", "mark_routes", "request_intent", "setup_replicas"]


class Dependencies(starlette.Dependencies):
    """The providers for FastAPI; see `modern_di_replicas.Dependencies`."""


def setup_replicas(app: fastapi.FastAPI, container: Container) -> Container:
    """Set up an application: `modern_di_fastapi.setup_di`, the monitor, and the tokens of clients.

    Args:
        app: the application, or a mounted sub-application, which is set up with the same container.
        container: holds `Dependencies` (or a subclass) and `context={ReplicationSettings: ...}`.

    Raises:
        ConfigurationError: the container does not hold `Dependencies`; or, when the application starts, a dependency
            is marked, or a server refuses the user, the password or the database of its URL.
        UnknownGroupError: when the application starts, a marker names a group that no replica declares.

    """
    starlette.prepare(app, container, Dependencies, check=_check_dependencies)
    return modern_di_fastapi.setup_di(app, container)


def _check_dependencies(route: typing.Any) -> None:  # noqa: ANN401  # routes of FastAPI and Starlette
    """Check that no dependency of a route is marked: only its endpoint can be.

    Raises:
        ConfigurationError: a dependency is marked.

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

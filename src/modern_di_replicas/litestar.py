"""Litestar: the intent comes from the request, and one plugin sets up the application."""

import collections.abc
import contextlib
import typing

import litestar
import modern_di_litestar
from litestar.config.app import AppConfig
from litestar.handlers import BaseRouteHandler
from litestar.middleware import DefineMiddleware
from litestar.routes import HTTPRoute
from modern_di import Container, Group, Scope, providers

from modern_di_replicas import dependencies
from modern_di_replicas.asgi.middleware import TokenMiddleware, TokenState
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.integration import check_container, declared_intent
from modern_di_replicas.intent import INTENT_OPT, Intent, marked_intent, resolve_intent


def request_intent(
    container: Container,
    declared: Intent | None,
    request: litestar.Request[typing.Any, typing.Any, typing.Any] | None = None,
) -> Intent:
    """Return the intent of a unit of work: declared in its context, by its handler's marker, or by the HTTP method.

    The marker may be on the handler, or in the `opt` of the handler, its controller, its router or the application:
    `opt={"intent": Intent.write()}`; the closest takes precedence. A websocket, and a unit of work outside any request,
    writes unless declared otherwise.

    Raises:
        ConfigurationError: `opt["intent"]` is not an `Intent`.

    """
    connection = dependencies.enclosing_connection(container, litestar.WebSocket) if request is None else request
    handler = connection.route_handler if connection is not None else None
    return resolve_intent(
        declared=declared,
        endpoint=handler.fn if handler is not None else None,
        marked=_handler_intent(handler) if handler is not None else None,
        method=request.method if request is not None else None,
    )


def _handler_intent(handler: BaseRouteHandler) -> Intent | None:
    intent = marked_intent(handler.fn) or handler.opt.get(INTENT_OPT)
    if intent is None or isinstance(intent, Intent):
        return intent
    raise ConfigurationError(
        field=f"opt[{INTENT_OPT!r}] of {handler}", value=intent, remedy="use Intent.read() or Intent.write()"
    )


class Dependencies(dependencies.Dependencies):
    """The providers for Litestar; see `modern_di_replicas.Dependencies`."""

    intent = providers.Factory(request_intent, scope=Scope.REQUEST, cache=True, kwargs={"declared": declared_intent})


class ReplicasPlugin(modern_di_litestar.ModernDIPlugin):
    """Sets up an application: the modern-di plugin, the monitor, and the tokens of clients.

    Args:
        container: holds `Dependencies` (or a subclass) and `context={ReplicationSettings: ...}`.
        autowired_groups: groups whose providers every handler can take as a parameter of the same name.

    Raises:
        ConfigurationError: the container does not hold `Dependencies`; or, when the application starts, an
            `opt["intent"]` is no `Intent`, or a server refuses the user, the password or the database of its URL.
        UnknownGroupError: when the application starts, a marker names a group that no replica declares.

    """

    def __init__(self, container: Container, autowired_groups: list[type[Group]] | None = None) -> None:
        check_container(container, Dependencies)
        super().__init__(container, autowired_groups)
        self._state = TokenState()

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        app_config = super().on_app_init(app_config)
        app_config.lifespan.insert(1, self._watch_servers)  # after the hook that opens the container
        # Litestar has its own types for ASGI.
        middleware = typing.cast(typing.Any, TokenMiddleware)
        app_config.middleware.insert(0, DefineMiddleware(middleware, state=self._state))
        return app_config

    def _watch_servers(self, app: litestar.Litestar) -> contextlib.AbstractAsyncContextManager[None]:
        return dependencies.monitored(self.container, _marked_intents(app), self._state)


def _marked_intents(app: litestar.Litestar) -> collections.abc.Iterator[Intent]:
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else [route.route_handler]:
            intent = _handler_intent(handler)
            if intent is not None:
                yield intent

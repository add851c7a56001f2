"""Flask: the intent comes from the request, and one call sets up the application."""

import atexit
import collections.abc
import contextlib
import threading
import typing
import weakref
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import click
import flask
import modern_di_flask
from modern_di import Container, Scope, providers

from modern_di_replicas.integration import check_container, declared_intent
from modern_di_replicas.intent import Intent, marked_intent, read_intent, resolve_intent
from modern_di_replicas.sync import dependencies
from modern_di_replicas.sync.engines import ReplicaEngine
from modern_di_replicas.sync.functions import in_units_of_work
from modern_di_replicas.sync.watch import Watch
from modern_di_replicas.tokens.validation import Tokens
from modern_di_replicas.wsgi.middleware import TokenMiddleware


Function = typing.TypeVar("Function", bound=collections.abc.Callable[..., typing.Any])


def request_intent(declared: Intent | None, watch: Watch, request: flask.Request | None = None) -> Intent:
    """Return the intent of a unit of work: declared in its context, by its view's marker, or by the HTTP method.

    A unit of work outside any request writes, unless its context, or the marker of its command, declares otherwise.
    """
    watch.start()
    view = _command() if request is None else _view(request)
    return resolve_intent(
        declared=declared,
        endpoint=view,
        marked=marked_intent(view),
        method=None if request is None else request.method,
    )


def _command() -> object:
    context = click.get_current_context(silent=True)
    return None if context is None else context.command.callback


def _view(request: flask.Request) -> object:
    """Return the function that serves a request; for a class-based view, the method."""
    view = flask.current_app.view_functions.get(request.endpoint or "")
    name = request.method.lower()
    methods = getattr(view, "view_class", None)
    for method in (name, "get") if name == "head" else (name,):
        found = getattr(methods, method, None)
        if found is not None and (marked_intent(found) is not None or marked_intent(view) is None):
            return found
    return view


class Dependencies(dependencies.Dependencies):
    """The providers for Flask; see `modern_di_replicas.sync.Dependencies`."""

    watch = providers.Factory(Watch, scope=Scope.APP, cache=providers.CacheSettings(finalizer=Watch.stop))
    intent = providers.Factory(request_intent, scope=Scope.REQUEST, cache=True, kwargs={"declared": declared_intent})


def setup_replicas(app: flask.Flask, container: Container) -> Container:
    """Set up an application: `modern_di_flask.setup_di`, the monitor, and the tokens of clients.

    Each process starts its monitor with the first request, so that a server may load the application before it forks
    its workers. The container is closed when the process exits.

    Args:
        app: the application.
        container: holds `Dependencies` (or a subclass) and `context={ReplicationSettings: ...}`.

    Raises:
        ConfigurationError: the container does not hold `Dependencies`; or, at the first request, a server refuses the
            user, the password or the database of its URL.
        UnknownGroupError: at the first request, a marker names a group that no replica declares.

    """
    check_container(container, Dependencies)
    app.wsgi_app = _Replicas(app, app.wsgi_app, container)  # type: ignore[method-assign]  # as Flask's documentation has it
    modern_di_flask.setup_di(app, container)
    flask.appcontext_pushed.connect(_open_unit_of_work, app)
    atexit.register(_close_container, weakref.ref(app))
    return container


def _close_container(app: weakref.ref[flask.Flask]) -> None:
    if (known := app()) is not None and not (container := modern_di_flask.fetch_di_container(known)).closed:
        container.close_sync()


class _Replicas:
    """The outermost WSGI application: it starts the monitor, and accepts the tokens of clients."""

    def __init__(self, app: flask.Flask, wsgi_app: WSGIApplication, container: Container) -> None:
        self._flask = app
        self._app = wsgi_app
        self._container = container
        self._lock = threading.Lock()
        self._made: tuple[ReplicaEngine, WSGIApplication] | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> collections.abc.Iterable[bytes]:
        replica = self._container.resolve(ReplicaEngine)
        made = self._made
        if made is None or made[0] is not replica:  # or a test has replaced it
            with self._lock:
                made = self._made = replica, self._serving(replica)
        self._container.resolve(Watch).start()
        if flask.has_app_context():
            with _own_unit_of_work():
                return made[1](environ, start_response)
        return made[1](environ, start_response)

    def _serving(self, replica: ReplicaEngine) -> WSGIApplication:
        if not isinstance(replica, ReplicaEngine):
            return self._app
        for view in self._flask.view_functions.values():
            for intent in _marked_intents(view):
                replica.topology.check_group(intent.group)
        return typing.cast(
            WSGIApplication, TokenMiddleware(self._app, replica.settings, self._container.resolve(Tokens))
        )


@contextlib.contextmanager
def _own_unit_of_work() -> collections.abc.Iterator[None]:
    """Give a request its own unit of work where a test has pushed an application context.

    Flask shares that context with the request, so modern-di-flask would close nothing at the request's end, and the
    test would continue in the request's unit of work. The names of its attributes are not public; `tests/test_flask.py`
    fails if they change.
    """
    names = modern_di_flask.main._CHILD_CONTAINER_ATTR, modern_di_flask.main._DEFERRED_CHILD_ATTR  # noqa: SLF001
    before = {name: flask.g.pop(name, None) for name in names}
    try:
        yield
    finally:
        child, closed_later = (flask.g.pop(name, None) for name in names)
        if child is not None and child is not closed_later:
            child.close_sync()
        for name, value in before.items():
            if value is not None:
                setattr(flask.g, name, value)


def _marked_intents(view: object) -> collections.abc.Iterator[Intent]:
    methods = getattr(view, "view_class", None)
    for function in (view, *(getattr(methods, name.lower(), None) for name in getattr(methods, "methods", None) or ())):
        if (intent := marked_intent(function)) is not None:
            yield intent


def _open_unit_of_work(app: flask.Flask, **_: object) -> None:
    """Open a unit of work for an application context outside of a request: of a command, or of `flask shell`.

    modern-di-flask closes it with the context. The name of its attribute is not public; `tests/test_flask.py` fails if
    it changes.
    """
    name = modern_di_flask.main._CHILD_CONTAINER_ATTR  # noqa: SLF001
    # `stream_with_context` pushes the context of its request again, which has a unit of work already.
    if not flask.has_request_context() and name not in flask.g:
        setattr(flask.g, name, modern_di_flask.fetch_di_container(app).build_child_container(scope=Scope.REQUEST))


@typing.overload
def with_replica(target: Container, **options: typing.Any) -> collections.abc.Callable[[Function], Function]: ...
@typing.overload
def with_replica(target: Function) -> Function: ...
@typing.overload
def with_replica(target: None = None, **options: typing.Any) -> collections.abc.Callable[[Function], Function]: ...
def with_replica(
    target: typing.Any = None,  # see the overloads
    **options: typing.Any,
) -> typing.Any:
    """Declare that a view reads from a replica, as `read_intent` does; or wrap another function.

    `@with_replica` and `@with_replica(group=...)` mark a view. `@with_replica(container)` wraps any function: each call
    is a unit of work that reads, and gets its `FromDI` parameters. For a generator or a coroutine function, it ends
    when the function has run.

    Args:
        target: a view, or the application's container.
        **options: those of `Intent.read`.

    Raises:
        ConfigurationError: the function is an asynchronous generator or has `@inject`, or an argument cannot be used.

    """
    if not isinstance(target, Container):
        return read_intent(**options) if target is None else read_intent(target, **options)
    return in_units_of_work(target, Intent.read(**{"reason": "with_replica", **options}))

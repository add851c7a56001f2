"""FastStream: a subscriber reads the writes of the message's sender, and declares its intent by a marker."""

import collections.abc
import contextlib
import datetime as dt
import functools
import typing

import faststream
import modern_di_faststream
from faststream.asgi import AsgiFastStream
from modern_di import Container, Scope, providers

from modern_di_replicas import dependencies
from modern_di_replicas.consistency.carrying import CARRIED, carry
from modern_di_replicas.consistency.job import begin_job, end_job, job_intent
from modern_di_replicas.integration import check_container, declared_intent
from modern_di_replicas.intent import Intent, marked_intent


CallNext = collections.abc.Callable[[typing.Any], collections.abc.Awaitable[typing.Any]]


def message_intent(
    declared: Intent | None,
    message: faststream.StreamMessage | None = None,  # type: ignore[type-arg]  # it is wired by this very type
) -> Intent:
    """Return the intent of a unit of work: declared in its context, or by the marker of its subscriber.

    A subscriber without a marker, and a unit of work outside any message, writes.
    """
    return job_intent(declared, is_of_job=message is not None)


class Dependencies(dependencies.Dependencies):
    """The providers for FastStream applications; see `modern_di_replicas.Dependencies`."""

    intent = providers.Factory(message_intent, scope=Scope.REQUEST, cache=True, kwargs={"declared": declared_intent})


def setup_replicas(
    app: faststream.FastStream | AsgiFastStream, container: Container, *, wait: dt.timedelta | None = None
) -> Container:
    """Set up an application: modern-di, the tokens in messages, and the monitor.

    A program that only publishes, such as a web application, gives its broker the middleware instead: `RedisBroker(url,
    middlewares=[ReplicasMiddleware(container)])`.

    Args:
        app: the application.
        container: holds `Dependencies` (or a subclass).
        wait: how long the reads of subscribers wait for a replica before they use the primary, where `@read_intent`
            does not say so; default: `ReplicationSettings.catch_up_wait`.

    Raises:
        ConfigurationError: the container does not hold `Dependencies`; or, when the application starts, a server
            refuses the user, the password or the database of its URL.
        UnknownGroupError: when the application starts, a marker names a group that no replica declares.

    """
    check_container(container, Dependencies)
    middleware = ReplicasMiddleware(container, wait=wait)
    watching = contextlib.AsyncExitStack()

    async def add_middleware() -> None:
        for broker in app.brokers:
            if middleware not in broker.config.broker_middlewares:
                broker.insert_middleware(middleware)  # outside of the one that opens the unit of work

    async def watch() -> None:
        marked = [marked_intent(_function(call.handler)) for call in _calls(app)]
        await watching.enter_async_context(dependencies.watched(container, filter(None, marked)))

    modern_di_faststream.setup_di(app, container)
    app.on_startup(add_middleware)
    app.on_startup(watch)
    app.after_shutdown(watching.aclose)
    return container


class ReplicasMiddleware:
    """Carries tokens in the headers of messages; `setup_replicas` adds it.

    Args:
        container: the container of the application.
        wait: how long the reads of subscribers wait for a replica, where their marker does not say so.

    """

    def __init__(self, container: Container, *, wait: dt.timedelta | None = None) -> None:
        self._container = container
        self._wait = wait

    def __call__(self, message: object, /, *, context: faststream.ContextRepo) -> "_OneMessage":
        return _OneMessage(self._container, self._wait, message, context=context)


class _OneMessage(faststream.BaseMiddleware[typing.Any, typing.Any]):
    """Begins a job with its message, and ends it when its answers are published."""

    def __init__(
        self, container: Container, wait: dt.timedelta | None, message: object, *, context: faststream.ContextRepo
    ) -> None:
        super().__init__(message, context=context)
        self._container = container
        self._wait = wait

    async def consume_scope(self, call_next: CallNext, msg: faststream.StreamMessage[typing.Any]) -> typing.Any:  # noqa: ANN401  # what the subscriber returns
        carried = [headers.get(CARRIED) for headers in msg.batch_headers or [msg.headers]]
        begin_job(self._container, carried, _subscriber(call_next), wait=self._wait)
        return await call_next(msg)

    async def after_processed(self, *error: typing.Any) -> bool | None:  # as `__aexit__` has it
        end_job()
        return await super().after_processed(*error)

    async def publish_scope(self, call_next: CallNext, cmd: faststream.PublishCommand) -> typing.Any:  # noqa: ANN401  # what the broker answers
        headers = dict(cmd.headers)  # not those that the application may use again
        carry(self._container, headers)
        cmd.headers = headers
        return await call_next(cmd)


def _calls(app: faststream.FastStream | AsgiFastStream) -> collections.abc.Iterator[typing.Any]:
    for broker in app.brokers:
        for subscriber in broker.subscribers:
            yield from subscriber.calls


def _subscriber(call_next: object) -> object:
    """Return the function that handles a message, inside the other middlewares, each of which has the next as argument.

    FastStream gives a middleware its subscriber, and not the function that handles the message.
    """
    while isinstance(call_next, functools.partial):
        call_next = call_next.args[0]
    return _function(getattr(call_next, "__self__", None))


def _function(handler: object) -> object:
    # It is not public, and nothing else leads to the function; without it, a subscriber writes.
    return getattr(handler, "_original_call", None)

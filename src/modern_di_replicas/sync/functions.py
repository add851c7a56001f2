"""Functions whose calls are units of work."""

import collections.abc
import contextlib
import contextvars
import functools
import inspect
import typing

from modern_di import Container, integrations

from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.intent import Intent
from modern_di_replicas.sync.units import unit_of_work


Arguments = dict[str, typing.Any]
AnyFunction = collections.abc.Callable[..., typing.Any]

_END: typing.Final = object()


def in_units_of_work(container: Container, intent: Intent) -> collections.abc.Callable[[AnyFunction], AnyFunction]:
    """Return a decorator: each call is a unit of work, and the function gets its `FromDI` parameters.

    For a generator or a coroutine function, it ends when the function has run.

    Args:
        container: the application's container.
        intent: the intent of the units of work.

    Raises:
        ConfigurationError: the function is an asynchronous generator, or has `@inject`; when it is decorated.

    """

    def wrap(function: AnyFunction) -> AnyFunction:
        markers = integrations.parse_markers(function)
        _check(function, is_injected=bool(markers) and integrations.is_injected(function))

        @contextlib.contextmanager
        def unit_for(given: Arguments) -> collections.abc.Iterator[Arguments]:
            with unit_of_work(container, intent=intent) as unit:
                yield {**integrations.resolve_markers(unit, markers), **given}

        return functools.wraps(function)(_called_in(unit_for, function))

    return wrap


def _check(function: object, *, is_injected: bool) -> None:
    remedy = None
    if is_injected:
        remedy = "leave out @inject: with_replica(container) passes the `FromDI` parameters"
    elif inspect.isasyncgenfunction(function):
        remedy = "open a `unit_of_work` in it: an asynchronous generator is not wrapped"
    if remedy is not None:
        raise ConfigurationError(field="the function of with_replica", value=function, remedy=remedy)


def _called_in(
    unit_for: collections.abc.Callable[[Arguments], contextlib.AbstractContextManager[Arguments]],
    function: AnyFunction,
) -> AnyFunction:
    """Wrap a function so that each call runs in a unit of work, which lasts as long as the call."""

    def call(*args: typing.Any, **given: typing.Any) -> typing.Any:  # noqa: ANN401
        with unit_for(given) as arguments:
            return function(*args, **arguments)

    async def call_coroutine(*args: typing.Any, **given: typing.Any) -> typing.Any:  # noqa: ANN401
        with unit_for(given) as arguments:
            return await function(*args, **arguments)

    def call_generator(*args: typing.Any, **given: typing.Any) -> collections.abc.Iterator[typing.Any]:
        def parts() -> collections.abc.Generator[typing.Any, None, None]:
            with unit_for(given) as arguments:
                yield from function(*args, **arguments)

        # Between the parts its caller runs, which is not in this unit of work.
        context, running = contextvars.copy_context(), parts()
        try:
            while (part := context.run(next, running, _END)) is not _END:
                yield part
        finally:
            context.run(running.close)

    if inspect.iscoroutinefunction(function):
        return call_coroutine
    return call_generator if inspect.isgeneratorfunction(function) else call

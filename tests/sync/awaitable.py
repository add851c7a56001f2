"""A synchronous session that can be awaited like an asynchronous one: so both halves are held to the same claims."""

import collections.abc
import typing

from modern_di_replicas import RoutedSession as AsyncRoutedSession
from modern_di_replicas.cluster.waiting import complete
from modern_di_replicas.sync import RoutedSession


AWAITED: typing.Final = frozenset(
    {
        *("execute", "scalar", "scalars", "get", "get_one", "refresh", "flush", "commit", "rollback", "merge"),
        *("delete", "begin", "begin_nested", "close"),
    }
)
"""The methods of `AsyncSession` and `AsyncConnection` that are awaited, or are asynchronous contexts."""


class Awaitable:
    """A call that happens when it is awaited, or entered."""

    def __init__(self, call: collections.abc.Callable[[], typing.Any]) -> None:
        self._call = call

    def __await__(self) -> collections.abc.Generator[None, None, typing.Any]:
        return self._call()
        yield  # never: it makes this a generator

    async def __aenter__(self) -> typing.Any:
        self._entered = self._call()
        return self._entered.__enter__()

    async def __aexit__(self, *error: object) -> typing.Any:
        return self._entered.__exit__(*error)


class AwaitableRows:
    """The rows of a stream."""

    def __init__(self, result: typing.Any) -> None:
        self._result = result
        self._rows = iter(result)

    def __aiter__(self) -> typing.Self:
        return self

    async def __anext__(self) -> typing.Any:
        try:
            return next(self._rows)
        except StopIteration:
            raise StopAsyncIteration from None

    async def partitions(self) -> collections.abc.AsyncIterator[typing.Any]:
        for part in self._result.partitions():
            yield part

    def scalars(self) -> "AwaitableRows":
        return AwaitableRows(self._result.scalars())

    async def all(self) -> typing.Any:
        return self._result.all()


class AwaitableSession:
    """A session, or a connection, whose methods are awaited."""

    def __init__(self, session: typing.Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> typing.Any:
        value = getattr(self._session, name)
        return (lambda *args, **options: Awaitable(lambda: value(*args, **options))) if name in AWAITED else value

    async def connection(self) -> typing.Any:
        return AwaitableSession(self._session.connection())

    async def run_sync(self, run: collections.abc.Callable[..., typing.Any], *args: typing.Any) -> typing.Any:
        return run(self._session, *args)

    async def stream(self, statement: typing.Any) -> AwaitableRows:
        return AwaitableRows(self._session.execute(statement, execution_options={"stream_results": True}))

    async def stream_scalars(self, statement: typing.Any) -> AwaitableRows:
        return AwaitableRows(self._session.scalars(statement, execution_options={"stream_results": True}))


def run(
    work: collections.abc.Callable[[AsyncRoutedSession], collections.abc.Awaitable[typing.Any]], session: RoutedSession
) -> typing.Any:
    """Run what was written for an asynchronous session on a synchronous one."""
    return complete(typing.cast(typing.Any, work(typing.cast(AsyncRoutedSession, AwaitableSession(session)))))

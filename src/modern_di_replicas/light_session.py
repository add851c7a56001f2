"""An `AsyncSession` whose calls take less processor time, and do the same."""

import collections.abc
import functools
import typing

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.asyncio.exc import AsyncMethodRequired

from modern_di_replicas.get_by_key import GetByKeySession
from modern_di_replicas.greenlets import run_in_greenlet
from modern_di_replicas.guarded_session import ALL_AT_ONCE


_OPTIONS: typing.Final = frozenset({"execution_options", "bind_arguments"})

Method = collections.abc.Callable[..., collections.abc.Awaitable[typing.Any]]


def _in_greenlet(method: Method) -> Method:
    """Return a method of `AsyncSession` that does the same, in a greenlet that is used again."""
    name = method.__name__

    @functools.wraps(method)
    async def run(self: AsyncSession, *args: typing.Any, **options: typing.Any) -> object:
        return await run_in_greenlet(getattr(self.sync_session, name), *args, **options)

    return run


class LightSession(AsyncSession):
    """An `AsyncSession` that makes no greenlet for a call, and no statement for a `get()`."""

    sync_session_class = GetByKeySession

    if not typing.TYPE_CHECKING:  # pragma: no branch  # to its users, each has the types of `AsyncSession`'s own
        get = _in_greenlet(AsyncSession.get)
        get_one = _in_greenlet(AsyncSession.get_one)
        scalar = _in_greenlet(AsyncSession.scalar)
        flush = _in_greenlet(AsyncSession.flush)
        refresh = _in_greenlet(AsyncSession.refresh)
        commit = _in_greenlet(AsyncSession.commit)
        rollback = _in_greenlet(AsyncSession.rollback)
        close = _in_greenlet(AsyncSession.close)

        @functools.wraps(AsyncSession.execute)
        async def execute(self, statement: object, params: object = None, **options: object) -> object:
            if options.keys() - _OPTIONS or any(options.values()):
                return await super().execute(statement, params, **options)
            result = await run_in_greenlet(self.sync_session.execute, statement, params, execution_options=ALL_AT_ONCE)
            if _streams(result):
                await run_in_greenlet(result.close)
                msg = "execute() cannot give rows one by one, as stream_results or yield_per ask for: use stream()"
                raise AsyncMethodRequired(msg)
            return result


def _streams(result: object) -> bool:
    # What the statement, the session, the connection and the engine ask for, all together.
    context = getattr(getattr(result, "raw", result), "context", None)
    return context is not None and bool(context.execution_options.get("stream_results"))

"""An `AsyncSession` whose calls take less processor time, and do the same."""

import collections.abc
import functools
import typing

from sqlalchemy import Executable
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.util import immutabledict

from modern_di_replicas.baked_get import BakedGetSession
from modern_di_replicas.greenlets import run_in_greenlet


Method = collections.abc.Callable[..., collections.abc.Awaitable[typing.Any]]

_BUFFERED: typing.Final = immutabledict({"prebuffer_rows": True})
"""What `AsyncSession.execute()` asks of the ORM: to load all there is to load before the result is read."""


def _in_greenlet(method: Method) -> Method:
    """Return a method of `AsyncSession` that does the same, in a greenlet that is used again."""
    name = method.__name__

    @functools.wraps(method)
    async def run(self: AsyncSession, *args: typing.Any, **options: typing.Any) -> object:
        return await run_in_greenlet(getattr(self.sync_session, name), *args, **options)

    return run


class LightSession(AsyncSession):
    """An `AsyncSession` that makes no greenlet for a call, and no statement for a `get()`."""

    sync_session_class = BakedGetSession

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
            is_plain = not any(options.values()) and isinstance(statement, Executable)
            if is_plain and not (statement.get_execution_options() or self._has_options):
                return await run_in_greenlet(self.sync_session.execute, statement, params, execution_options=_BUFFERED)
            return await super().execute(statement, params, **options)  # which refuses to stream

    @property
    def _has_options(self) -> bool:
        # Sessions of SQLAlchemy 2.0 have none.
        return bool(getattr(self.sync_session, "execution_options", None))

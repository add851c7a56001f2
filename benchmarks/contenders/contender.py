"""The interface of every contender."""

import abc
import collections.abc
import contextlib
import dataclasses
import typing

import fastapi

from benchmarks.servers import Servers
from benchmarks.work import on_session
from benchmarks.work.operations import Run


@dataclasses.dataclass(kw_only=True, slots=True)
class FastAPIParts:
    """An application without routes, and the dependencies that give its handlers a session."""

    app: fastapi.FastAPI
    reading: typing.Any
    writing: typing.Any


class Contender(abc.ABC):
    """One way to use a replicated database, as its own documentation recommends.

    Entering the context starts it. A unit of work is that of a request: a session or a connection, used and released.
    """

    work: typing.ClassVar[dict[str, Run]] = on_session.WORK

    @abc.abstractmethod
    def __init__(self, servers: Servers) -> None: ...

    @abc.abstractmethod
    def unit_of_work(self, *, writes: bool) -> contextlib.AbstractAsyncContextManager[typing.Any]: ...

    async def __aenter__(self) -> typing.Self:
        return self

    @abc.abstractmethod
    async def __aexit__(self, *_: object) -> None: ...

    def fastapi(self) -> FastAPIParts:
        """Return a dependency with `yield`, unless the contender has its own integration."""
        app = fastapi.FastAPI(lifespan=self._lifespan)
        return FastAPIParts(app=app, reading=fastapi.Depends(self._reading), writing=fastapi.Depends(self._writing))

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: object) -> collections.abc.AsyncIterator[None]:  # noqa: ARG002  # FastAPI's signature
        async with self:
            yield

    async def _reading(self) -> collections.abc.AsyncIterator[typing.Any]:
        async with self.unit_of_work(writes=False) as session:
            yield session

    async def _writing(self) -> collections.abc.AsyncIterator[typing.Any]:
        async with self.unit_of_work(writes=True) as session:
            yield session

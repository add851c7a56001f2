"""What the benchmark asks of every contender."""

import abc
import collections.abc
import contextlib
import dataclasses
import typing

import fastapi
import litestar
from litestar.di import Provide
from litestar.plugins import PluginProtocol

from benchmarks.servers import Servers
from benchmarks.work import on_session
from benchmarks.work.operations import Run


@dataclasses.dataclass(kw_only=True, slots=True)
class FastAPIParts:
    """An application without routes, and what gives its handlers a session."""

    app: fastapi.FastAPI
    reading: typing.Any
    writing: typing.Any


@dataclasses.dataclass(kw_only=True, slots=True)
class LitestarParts:
    """What a Litestar application is made of, and what gives its handlers a session, unless a plugin does."""

    reading: Provide | None = None
    writing: Provide | None = None
    plugins: list[PluginProtocol] = dataclasses.field(default_factory=list)
    lifespan: list[collections.abc.Callable[[litestar.Litestar], contextlib.AbstractAsyncContextManager[None]]] = (
        dataclasses.field(default_factory=list)
    )


class Contender(abc.ABC):
    """One way to use a replicated database, in the form that its own documentation recommends.

    Enter it to start it. A unit of work is what a request is: a session, or a connection, that is used and given back.
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

    # With a framework: a dependency with `yield`, unless the contender brings something of its own.

    def fastapi(self) -> FastAPIParts:
        app = fastapi.FastAPI(lifespan=self._lifespan)
        return FastAPIParts(app=app, reading=fastapi.Depends(self._reading), writing=fastapi.Depends(self._writing))

    def litestar(self) -> LitestarParts:
        return LitestarParts(reading=Provide(self._reading), writing=Provide(self._writing), lifespan=[self._lifespan])

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: object) -> collections.abc.AsyncIterator[None]:  # noqa: ARG002  # the frameworks' signature
        async with self:
            yield

    async def _reading(self) -> collections.abc.AsyncIterator[typing.Any]:
        async with self.unit_of_work(writes=False) as session:
            yield session

    async def _writing(self) -> collections.abc.AsyncIterator[typing.Any]:
        async with self.unit_of_work(writes=True) as session:
            yield session

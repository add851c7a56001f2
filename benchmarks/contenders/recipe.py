"""modern-di's recipes, combined: `request-scoped-engine` chooses an engine, `sqlalchemy` says to ping.

https://modern-di.modern-python.org/recipes/request-scoped-engine/
https://modern-di.modern-python.org/recipes/sqlalchemy/
"""

import collections.abc
import typing

import fastapi
import litestar
import modern_di_fastapi
import modern_di_litestar
from modern_di import Container, Group, Scope, providers
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from benchmarks.contenders.contender import Contender, FastAPIParts, LitestarParts
from benchmarks.contenders.unit_of_work import UnitOfWork
from benchmarks.servers import READING_CONNECTIONS, WRITING_CONNECTIONS, Servers


READ = fastapi.Request({"type": "http", "method": "GET"})
WRITE = fastapi.Request({"type": "http", "method": "POST"})
AnyRequest = fastapi.Request | litestar.Request[typing.Any, typing.Any, typing.Any]


def by_method(primary: AsyncEngine, replica: AsyncEngine, request: AnyRequest) -> AsyncEngine:
    return replica if request.method in ("GET", "HEAD") else primary


def for_fastapi(primary: AsyncEngine, replica: AsyncEngine, request: fastapi.Request) -> AsyncEngine:
    return by_method(primary, replica, request)


def for_litestar(
    primary: AsyncEngine,
    replica: AsyncEngine,
    request: litestar.Request,  # type: ignore[type-arg]  # modern-di wires by the bare type
) -> AsyncEngine:
    return by_method(primary, replica, request)


def create_session(engine: AsyncEngine) -> AsyncSession:
    return AsyncSession(engine, expire_on_commit=False)


class Recipe(Contender):
    pre_ping: typing.ClassVar = True

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    def _group(self, choose_engine: collections.abc.Callable[..., AsyncEngine]) -> type[Group]:
        def engine(url: str, size: int) -> collections.abc.Callable[[], AsyncEngine]:
            def create_engine() -> AsyncEngine:
                return create_async_engine(url, pool_pre_ping=self.pre_ping, pool_size=size, max_overflow=0)

            return create_engine

        disposed = providers.CacheSettings(finalizer=AsyncEngine.dispose)
        create_primary = engine(self._servers.primary, WRITING_CONNECTIONS)
        create_replica = engine(self._servers.replicas[0], READING_CONNECTIONS)

        class Dependencies(Group):
            primary = providers.Factory(create_primary, scope=Scope.APP, bound_type=None, cache=disposed)
            replica = providers.Factory(create_replica, scope=Scope.APP, bound_type=None, cache=disposed)
            engine = providers.Factory(
                choose_engine, scope=Scope.REQUEST, kwargs={"primary": primary, "replica": replica}, cache=True
            )
            session = providers.Factory(
                create_session, scope=Scope.REQUEST, cache=providers.CacheSettings(finalizer=AsyncSession.close)
            )

        return Dependencies

    async def __aenter__(self) -> typing.Self:
        self.container = Container(groups=[self._group(for_fastapi)])
        self.container.add_providers(modern_di_fastapi.fastapi_request_provider)
        await self.container.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.container.close_async()

    def unit_of_work(self, *, writes: bool) -> UnitOfWork:
        return UnitOfWork(self.container, {fastapi.Request: WRITE if writes else READ})

    def fastapi(self) -> FastAPIParts:
        app = fastapi.FastAPI()
        modern_di_fastapi.setup_di(app, Container(groups=[self._group(for_fastapi)]))
        session = modern_di_fastapi.FromDI(AsyncSession)
        return FastAPIParts(app=app, reading=session, writing=session)

    def litestar(self) -> LitestarParts:
        plugin = modern_di_litestar.ModernDIPlugin(Container(groups=[self._group(for_litestar)]))
        session = modern_di_litestar.FromDI(AsyncSession)
        return LitestarParts(reading=session, writing=session, plugins=[plugin])


class RecipeWithoutPing(Recipe):
    """The page on read replicas alone, which does not mention the ping."""

    pre_ping = False

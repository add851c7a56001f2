"""modern-di's recipes, combined: `request-scoped-engine` chooses an engine, `sqlalchemy` recommends pre-ping.

https://modern-di.modern-python.org/recipes/request-scoped-engine/
https://modern-di.modern-python.org/recipes/sqlalchemy/
"""

import collections.abc
import typing

import fastapi
import modern_di_fastapi
from modern_di import Container, Group, Scope, providers
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from benchmarks.contenders.contender import Contender, FastAPIParts
from benchmarks.contenders.unit_of_work import UnitOfWork
from benchmarks.servers import READING_CONNECTIONS, WRITING_CONNECTIONS, Servers


READ = fastapi.Request({"type": "http", "method": "GET"})
WRITE = fastapi.Request({"type": "http", "method": "POST"})


def choose_engine(primary: AsyncEngine, replica: AsyncEngine, request: fastapi.Request) -> AsyncEngine:
    return replica if request.method in ("GET", "HEAD") else primary


def create_session(engine: AsyncEngine) -> AsyncSession:
    return AsyncSession(engine, expire_on_commit=False)


class Recipe(Contender):
    options: typing.ClassVar[dict[str, typing.Any]] = {"pool_pre_ping": True}

    def __init__(self, servers: Servers) -> None:
        def engine(url: str, size: int) -> collections.abc.Callable[[], AsyncEngine]:
            def create_engine() -> AsyncEngine:
                return create_async_engine(url, pool_size=size, max_overflow=0, **self.options)

            return create_engine

        disposed = providers.CacheSettings(finalizer=AsyncEngine.dispose)
        create_primary = engine(servers.primary, WRITING_CONNECTIONS)
        create_replica = engine(servers.replicas[0], READING_CONNECTIONS)

        class Dependencies(Group):
            primary = providers.Factory(create_primary, scope=Scope.APP, bound_type=None, cache=disposed)
            replica = providers.Factory(create_replica, scope=Scope.APP, bound_type=None, cache=disposed)
            engine = providers.Factory(
                choose_engine, scope=Scope.REQUEST, kwargs={"primary": primary, "replica": replica}, cache=True
            )
            session = providers.Factory(
                create_session, scope=Scope.REQUEST, cache=providers.CacheSettings(finalizer=AsyncSession.close)
            )

        self.container = Container(groups=[Dependencies])

    async def __aenter__(self) -> typing.Self:
        self.container.add_providers(modern_di_fastapi.fastapi_request_provider)
        await self.container.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.container.close_async()

    def unit_of_work(self, *, writes: bool) -> UnitOfWork:
        return UnitOfWork(self.container, {fastapi.Request: WRITE if writes else READ})

    def fastapi(self) -> FastAPIParts:
        app = fastapi.FastAPI()
        modern_di_fastapi.setup_di(app, self.container)
        session = modern_di_fastapi.FromDI(AsyncSession)
        return FastAPIParts(app=app, reading=session, writing=session)


class RecipeWithoutPing(Recipe):
    """The page on read replicas alone does not mention pre-ping."""

    options: typing.ClassVar[dict[str, typing.Any]] = {}


class Autocommit(Recipe):
    """Reads in autocommit, as modern-di-replicas does: the baseline for the cost of its routing. It only reads."""

    options: typing.ClassVar[dict[str, typing.Any]] = {"isolation_level": "AUTOCOMMIT"}

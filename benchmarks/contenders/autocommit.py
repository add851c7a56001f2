"""A session in autocommit on one replica, from a container, without routing: the baseline for the cost of routing."""

import typing

from modern_di import Container, Group, Scope, providers
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from benchmarks.contenders.contender import Contender
from benchmarks.contenders.unit_of_work import UnitOfWork
from benchmarks.servers import READING_CONNECTIONS, Servers


class Autocommit(Contender):
    def __init__(self, servers: Servers) -> None:
        def create_engine() -> AsyncEngine:
            return create_async_engine(
                servers.replicas[0], isolation_level="AUTOCOMMIT", pool_size=READING_CONNECTIONS, max_overflow=0
            )

        def create_session(engine: AsyncEngine) -> AsyncSession:
            return AsyncSession(engine, expire_on_commit=False)

        class Dependencies(Group):
            engine = providers.Factory(
                create_engine, scope=Scope.APP, cache=providers.CacheSettings(finalizer=AsyncEngine.dispose)
            )
            session = providers.Factory(
                create_session, scope=Scope.REQUEST, cache=providers.CacheSettings(finalizer=AsyncSession.close)
            )

        self.container = Container(groups=[Dependencies])

    async def __aenter__(self) -> typing.Self:
        await self.container.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.container.close_async()

    def unit_of_work(self, *, writes: bool) -> UnitOfWork:  # noqa: ARG002  # it only reads
        return UnitOfWork(self.container)

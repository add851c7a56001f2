"""A plain `AsyncSession` on one engine, the primary's: the state before replicas.

https://docs.sqlalchemy.org/en/21/orm/extensions/asyncio.html
"""

import contextlib

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from benchmarks.contenders.contender import Contender
from benchmarks.servers import READING_CONNECTIONS, Servers


class Plain(Contender):
    def __init__(self, servers: Servers) -> None:
        self._engine = create_async_engine(servers.primary, pool_size=READING_CONNECTIONS, max_overflow=0)
        self._create_session = async_sessionmaker(self._engine, expire_on_commit=False)

    async def __aexit__(self, *_: object) -> None:
        await self._engine.dispose()

    def unit_of_work(self, *, writes: bool) -> contextlib.AbstractAsyncContextManager[AsyncSession]:  # noqa: ARG002  # one engine does both
        return self._create_session()

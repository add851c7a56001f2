"""A session that stays on the primary for 2 s after a write, by a cookie, as in Rails.

https://guides.rubyonrails.org/active_record_multiple_databases.html#activating-automatic-role-switching
"""

import collections.abc
import time
import typing

import fastapi
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from benchmarks.contenders.contender import Contender, FastAPIParts
from benchmarks.servers import READING_CONNECTIONS, WRITING_CONNECTIONS, Servers


COOKIE: typing.Final = "last_write"
SECONDS: typing.Final = 2


class Pinned(Contender):
    def __init__(self, servers: Servers) -> None:
        self._primary = create_async_engine(servers.primary, pool_size=WRITING_CONNECTIONS, max_overflow=0)
        self._replica = create_async_engine(servers.replicas[0], pool_size=READING_CONNECTIONS, max_overflow=0)

    async def __aexit__(self, *_: object) -> None:
        await self._primary.dispose()
        await self._replica.dispose()

    def unit_of_work(self, *, writes: bool) -> AsyncSession:
        return AsyncSession(self._primary if writes else self._replica, expire_on_commit=False)

    def fastapi(self) -> FastAPIParts:
        async def reading(request: fastapi.Request) -> collections.abc.AsyncIterator[AsyncSession]:
            is_pinned = time.time() < float(request.cookies.get(COOKIE, 0)) + SECONDS
            async with self.unit_of_work(writes=is_pinned) as session:
                yield session

        async def writing(response: fastapi.Response) -> collections.abc.AsyncIterator[AsyncSession]:
            response.set_cookie(COOKIE, str(time.time()), httponly=True)
            async with self.unit_of_work(writes=True) as session:
                yield session

        app = fastapi.FastAPI(lifespan=self._lifespan)
        return FastAPIParts(app=app, reading=fastapi.Depends(reading), writing=fastapi.Depends(writing))

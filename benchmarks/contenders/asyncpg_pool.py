"""Raw asyncpg with a pool for each role, without an ORM.

https://magicstack.github.io/asyncpg/current/usage.html#connection-pools
"""

import contextlib
import typing

import asyncpg

from benchmarks.contenders.contender import Contender
from benchmarks.servers import READING_CONNECTIONS, WRITING_CONNECTIONS, Servers, dsn
from benchmarks.work import on_asyncpg


class AsyncpgPool(Contender):
    work = on_asyncpg.WORK

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    async def __aenter__(self) -> typing.Self:
        primary, replica = dsn(self._servers.primary), dsn(self._servers.replicas[0])
        self._writing_pool = await asyncpg.create_pool(primary, min_size=1, max_size=WRITING_CONNECTIONS)
        self._reading_pool = await asyncpg.create_pool(replica, min_size=1, max_size=READING_CONNECTIONS)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reading_pool.close()
        await self._writing_pool.close()

    def unit_of_work(self, *, writes: bool) -> contextlib.AbstractAsyncContextManager[typing.Any]:
        pool = self._writing_pool if writes else self._reading_pool
        return typing.cast(contextlib.AbstractAsyncContextManager[typing.Any], pool.acquire())

"""hasql with its session maker for SQLAlchemy, as its README and its docstrings show it.

https://github.com/aiokitchen/hasql
"""

import contextlib
import typing

from hasql.driver.asyncsqlalchemy import PoolManager, async_sessionmaker
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.contenders.contender import Contender
from benchmarks.servers import Servers


class Hasql(Contender):
    def __init__(self, servers: Servers) -> None:
        primary = make_url(servers.primary)
        urls = [primary, *map(make_url, servers.replicas)]
        hosts = ",".join(f"{url.host}:{url.port}" for url in urls)
        self._dsn = f"postgresql://{primary.username}:{primary.password}@{hosts}/{primary.database}"
        self._pool_options = {"pool_size": servers.reading_connections, "max_overflow": 0}

    async def __aenter__(self) -> typing.Self:
        self._pool = PoolManager(self._dsn, fallback_master=True, pool_factory_kwargs=self._pool_options)
        await self._pool.ready(masters_count=1, replicas_count=1)
        self._create_reading = async_sessionmaker(
            self._pool, expire_on_commit=False, acquire_kwargs={"read_only": True}
        )
        self._create_writing = async_sessionmaker(self._pool, expire_on_commit=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    def unit_of_work(self, *, writes: bool) -> contextlib.AbstractAsyncContextManager[AsyncSession]:
        create = self._create_writing if writes else self._create_reading
        return typing.cast(contextlib.AbstractAsyncContextManager[AsyncSession], create())

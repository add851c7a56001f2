"""One raw asyncpg connection for each role, always open: the floor of the floor, for one client."""

import contextlib
import typing

import asyncpg

from benchmarks.contenders.contender import Contender
from benchmarks.servers import Servers, dsn
from benchmarks.work import on_asyncpg


class AsyncpgConnection(Contender):
    work = on_asyncpg.WORK

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    async def __aenter__(self) -> typing.Self:
        self._writing_connection = await asyncpg.connect(dsn(self._servers.primary))
        self._reading_connection = await asyncpg.connect(dsn(self._servers.replicas[0]))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reading_connection.close()
        await self._writing_connection.close()

    def unit_of_work(self, *, writes: bool) -> contextlib.AbstractAsyncContextManager[typing.Any]:
        return contextlib.nullcontext(self._writing_connection if writes else self._reading_connection)

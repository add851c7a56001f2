"""The `get_bind()` override of SQLAlchemy's documentation, "Custom Vertical Partitioning", on asyncio.

https://docs.sqlalchemy.org/en/21/orm/persistence_techniques.html#custom-vertical-partitioning
"""

import contextlib
import random
import typing

from sqlalchemy import Delete, Engine, Update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from benchmarks.contenders.contender import Contender
from benchmarks.servers import WRITING_CONNECTIONS, Servers


class GetBind(Contender):
    def __init__(self, servers: Servers) -> None:
        leader = create_async_engine(servers.primary, pool_size=WRITING_CONNECTIONS, max_overflow=0)
        followers = [
            create_async_engine(url, pool_size=servers.reading_connections, max_overflow=0) for url in servers.replicas
        ]
        self._engines = [leader, *followers]

        class RoutingSession(Session):
            def get_bind(
                self,
                mapper: typing.Any = None,  # noqa: ARG002
                clause: typing.Any = None,
                **options: typing.Any,  # noqa: ARG002
            ) -> Engine:
                if self._flushing or isinstance(clause, Update | Delete):
                    return leader.sync_engine
                return random.choice(followers).sync_engine  # noqa: S311  # for spreading

        self._create_session = async_sessionmaker(sync_session_class=RoutingSession, expire_on_commit=False)

    async def __aexit__(self, *_: object) -> None:
        for engine in self._engines:
            await engine.dispose()

    def unit_of_work(self, *, writes: bool) -> contextlib.AbstractAsyncContextManager[AsyncSession]:  # noqa: ARG002  # the session sees it in the statement
        return self._create_session()

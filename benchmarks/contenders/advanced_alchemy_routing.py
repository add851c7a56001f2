"""Advanced Alchemy's read/write routing, with its extension for FastAPI. It needs SQLAlchemy 2.0.

https://advanced-alchemy.litestar.dev/latest/usage/routing.html
"""

import contextlib
import typing

import fastapi
from advanced_alchemy.config import AsyncSessionConfig, EngineConfig
from advanced_alchemy.config import SQLAlchemyAsyncConfig as Config
from advanced_alchemy.config.routing import RoutingConfig
from advanced_alchemy.extensions.fastapi import AdvancedAlchemy
from advanced_alchemy.extensions.fastapi import SQLAlchemyAsyncConfig as FastAPIConfig
from advanced_alchemy.routing import dispose_session_maker_async
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.contenders.contender import Contender, FastAPIParts
from benchmarks.servers import Servers


class AdvancedAlchemyRouting(Contender):
    def __init__(self, servers: Servers) -> None:
        # The same pool for every engine: its configuration supports only one size.
        self._options: dict[str, typing.Any] = {
            "routing_config": RoutingConfig(
                primary_connection_string=servers.primary, read_replicas=list(servers.replicas)
            ),
            "engine_config": EngineConfig(pool_size=servers.reading_connections, max_overflow=0),
            "session_config": AsyncSessionConfig(expire_on_commit=False),
        }
        self._config = Config(**self._options)

    async def __aexit__(self, *_: object) -> None:
        await dispose_session_maker_async(self._config.create_session_maker())

    def unit_of_work(self, *, writes: bool) -> contextlib.AbstractAsyncContextManager[AsyncSession]:  # noqa: ARG002  # the session sees it in the statement
        return self._config.get_session()

    def fastapi(self) -> FastAPIParts:
        app = fastapi.FastAPI()
        alchemy = AdvancedAlchemy(config=FastAPIConfig(**self._options), app=app)
        session = fastapi.Depends(alchemy.provide_session())
        return FastAPIParts(app=app, reading=session, writing=session)

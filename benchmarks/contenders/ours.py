"""modern-di-replicas, as in its README."""

import contextlib
import typing

import fastapi
import modern_di_fastapi
from modern_di import Container
from sqlalchemy.ext.asyncio import AsyncSession

import modern_di_replicas.fastapi
from benchmarks.contenders.contender import Contender, FastAPIParts
from benchmarks.contenders.unit_of_work import UnitOfWork
from benchmarks.servers import WRITING_CONNECTIONS, Servers
from modern_di_replicas import Dependencies, Intent, Monitor, ReplicaEngine, ReplicationSettings


READ, WRITE = Intent.read(), Intent.write()


class Ours(Contender):
    options: typing.ClassVar[dict[str, typing.Any]] = {}
    token_carrier: typing.ClassVar[typing.Literal["cookie"] | None] = "cookie"  # noqa: S105  # a kind, not a secret

    def __init__(self, servers: Servers) -> None:
        self._context: dict[type[typing.Any], typing.Any] = {
            ReplicationSettings: ReplicationSettings(
                primary=servers.primary,
                replicas=servers.replicas,
                primary_pool_size=WRITING_CONNECTIONS,
                primary_max_overflow=0,
                replica_pool_size=servers.reading_connections,
                replica_max_overflow=0,
                token_carrier=self.token_carrier,
                **self.options,
            )
        }
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> typing.Self:
        self.container = Container(groups=[Dependencies], context=self._context)
        await self._stack.enter_async_context(self.container)
        await self._stack.enter_async_context(Monitor(self.container.resolve(ReplicaEngine)))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def unit_of_work(self, *, writes: bool) -> UnitOfWork:
        return UnitOfWork(self.container, {Intent: WRITE if writes else READ})

    def fastapi(self) -> FastAPIParts:
        app = fastapi.FastAPI()
        container = Container(groups=[modern_di_replicas.fastapi.Dependencies], context=self._context)
        modern_di_replicas.fastapi.setup_replicas(app, container)
        session = modern_di_fastapi.FromDI(AsyncSession)
        return FastAPIParts(app=app, reading=session, writing=session)


class OursWithoutTokens(Ours):
    """The baseline for the cost of tokens."""

    token_carrier = None

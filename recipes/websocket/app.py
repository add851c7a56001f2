"""Websockets on FastAPI and on Litestar: one unit of work per message, however long the socket stays open.

A unit of work for the whole connection would keep its database connection and its server for hours. The writes of a
message are visible to the next messages of the same socket.

Run it:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/stock
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2/stock postgresql+asyncpg://app:secret@db-3/stock"
    uvicorn --factory app:fastapi_app
    uvicorn --factory app:litestar_app
"""

import os
import typing

import fastapi
import litestar
import modern_di_fastapi
from litestar.di import NamedDependency
from modern_di import Container, Group, Scope, providers
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import modern_di_replicas.fastapi
import modern_di_replicas.litestar
from modern_di_replicas import Intent, ReplicationSettings


class Base(DeclarativeBase):
    pass


class Article(Base):
    __tablename__ = "articles"

    name: Mapped[str] = mapped_column(primary_key=True)
    in_stock: Mapped[int]


class Stock:
    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def of(self, name: str) -> int:
        article = await self.session.get(Article, name)
        return article.in_stock if article else 0

    async def deliver(self, name: str, amount: int) -> int:
        article = await self.session.get(Article, name, with_for_update=True)
        if article is None:
            article = Article(name=name, in_stock=0)
            self.session.add(article)
        article.in_stock += amount
        await self.session.commit()
        return article.in_stock


class Repositories(Group):
    stock = providers.Factory(Stock, scope=Scope.REQUEST)


class Message(typing.TypedDict):
    article: str
    delivered: int
    """0 for a read only."""


async def answer(connection: Container, message: Message) -> int:
    """Answer one message in a separate unit of work with a declared intent."""
    intent = Intent.write() if message["delivered"] else Intent.read()
    async with connection.build_child_container(scope=Scope.REQUEST, context={Intent: intent}) as unit:
        stock = unit.resolve(Stock)
        if message["delivered"]:
            return await stock.deliver(message["article"], message["delivered"])
        return await stock.of(message["article"])


def settings() -> ReplicationSettings:
    return ReplicationSettings(primary=os.environ["PRIMARY_URL"], replicas=os.environ["REPLICA_URLS"].split())


def fastapi_app() -> fastapi.FastAPI:
    app = fastapi.FastAPI()

    # The container of a connection has modern-di's scope SESSION. A session has the scope REQUEST, so it is resolved
    # from a child container.
    @app.websocket("/stock")
    async def stock(
        socket: fastapi.WebSocket, connection: typing.Annotated[Container, modern_di_fastapi.FromDI(Container)]
    ) -> None:
        await socket.accept()
        async for message in socket.iter_json():
            await socket.send_json(await answer(connection, message))

    dependencies = modern_di_replicas.fastapi.Dependencies
    container = Container(groups=[dependencies, Repositories], context={ReplicationSettings: settings()})
    modern_di_replicas.fastapi.setup_replicas(app, container)
    return app


def litestar_app() -> litestar.Litestar:
    @litestar.websocket("/stock")
    async def stock(
        socket: litestar.WebSocket[typing.Any, typing.Any, typing.Any], di_container: NamedDependency[Container]
    ) -> None:
        await socket.accept()
        async for message in socket.iter_json():
            await socket.send_json(await answer(di_container, message))

    dependencies = modern_di_replicas.litestar.Dependencies
    container = Container(groups=[dependencies, Repositories], context={ReplicationSettings: settings()})
    return litestar.Litestar([stock], plugins=[modern_di_replicas.litestar.ReplicasPlugin(container)])

"""Events with FastStream: a subscriber reads the writes of the event's sender, from a replica that has them.

A subscriber declares with `@read_intent` that it only reads; without it, it may write. The tokens are in the headers of
the messages. Publish an event after the commit: for an event that is published before, the primary is read.

Run it:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/shop
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2/shop postgresql+asyncpg://app:secret@db-3/shop"
    export REDIS_URL=redis://queue-1
    faststream run --factory app:worker
    uvicorn --factory app:main
"""

import collections.abc
import contextlib
import datetime as dt
import os
from typing import Annotated

import fastapi
import faststream
import modern_di_fastapi
import modern_di_faststream
from faststream.redis import RedisBroker, RedisRouter
from modern_di import Container, Group, Scope, providers
from sqlalchemy import ForeignKey, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

import modern_di_replicas.fastapi
import modern_di_replicas.faststream
from modern_di_replicas import ReplicationSettings, read_intent


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    paid: Mapped[bool] = mapped_column(default=False)
    items: Mapped[list["Item"]] = relationship(back_populates="order")


class Item(Base):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    cents: Mapped[int]
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    order: Mapped[Order] = relationship(back_populates="items")


class OrderRepository:
    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def add(self, customer: str, cents: list[int]) -> Order:
        order = Order(customer=customer, items=[Item(cents=each) for each in cents])
        self.session.add(order)
        await self.session.commit()
        return order

    async def invoice(self, order_id: int) -> str:
        row = await self.session.execute(
            select(Order.customer, func.sum(Item.cents))
            .join(Order.items)
            .where(Order.id == order_id)
            .group_by(Order.id)
        )
        customer, cents = row.one()
        return f"{customer} owes {cents / 100:.2f}"

    async def pay(self, order_id: int) -> None:
        order = await self.session.get_one(Order, order_id)
        order.paid = True
        await self.session.commit()


class Repositories(Group):
    orders = providers.Factory(OrderRepository, scope=Scope.REQUEST)


# The worker

events = RedisRouter()

Orders = Annotated[OrderRepository, modern_di_faststream.FromDI(OrderRepository)]


@events.subscriber("order-created")
@events.publisher("invoice-written")
@read_intent
async def write_invoice(order_id: int, orders: Orders) -> str:
    return await orders.invoice(order_id)


@events.subscriber("order-paid")
async def pay(order_id: int, orders: Orders) -> None:
    await orders.pay(order_id)


def create_worker(settings: ReplicationSettings, redis_url: str) -> faststream.FastStream:
    container = Container(
        groups=[modern_di_replicas.faststream.Dependencies, Repositories], context={ReplicationSettings: settings}
    )
    app = faststream.FastStream(RedisBroker(redis_url, routers=[events]))
    # An event can wait for a replica instead of using the primary.
    modern_di_replicas.faststream.setup_replicas(app, container, wait=dt.timedelta(seconds=5))
    return app


# The application

router = fastapi.APIRouter()


@router.post("/orders", status_code=201)
async def create_order(
    customer: str,
    cents: Annotated[list[int], fastapi.Query()],
    orders: Annotated[OrderRepository, modern_di_fastapi.FromDI(OrderRepository)],
    broker: Annotated[RedisBroker, modern_di_fastapi.FromDI(RedisBroker)],
) -> int:
    order = await orders.add(customer, cents)
    await broker.publish(order.id, "order-created")  # after the commit
    return order.id


class AppDependencies(modern_di_replicas.fastapi.Dependencies):
    broker = providers.ContextProvider(RedisBroker, scope=Scope.APP)


def create_app(settings: ReplicationSettings, redis_url: str) -> fastapi.FastAPI:
    container = Container(groups=[AppDependencies, Repositories], context={ReplicationSettings: settings})
    broker = RedisBroker(redis_url, middlewares=[modern_di_replicas.faststream.ReplicasMiddleware(container)])
    container.set_context(RedisBroker, broker)

    @contextlib.asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> collections.abc.AsyncIterator[None]:
        async with broker:
            yield

    app = fastapi.FastAPI(lifespan=lifespan)
    app.include_router(router)
    modern_di_replicas.fastapi.setup_replicas(app, container)
    return app


def settings() -> ReplicationSettings:
    return ReplicationSettings(primary=os.environ["PRIMARY_URL"], replicas=os.environ["REPLICA_URLS"].split())


def worker() -> faststream.FastStream:
    return create_worker(settings(), os.environ["REDIS_URL"])


def main() -> fastapi.FastAPI:
    return create_app(settings(), os.environ["REDIS_URL"])

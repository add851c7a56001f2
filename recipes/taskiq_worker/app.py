"""Tasks in a Taskiq worker: they read the writes of the request that queued them, from a replica that has them.

A task declares with `@read_intent` that it only reads; without it, it may write. The tokens are in the labels of the
messages. Queue a task after the commit: a task that is queued before reads from the primary.

Run it:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/shop
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2/shop postgresql+asyncpg://app:secret@db-3/shop"
    export REDIS_URL=redis://queue-1
    taskiq worker app:worker
    uvicorn --factory app:main
"""

import collections.abc
import contextlib
import datetime as dt
import os
from typing import Annotated

import fastapi
import modern_di_fastapi
import modern_di_taskiq
import taskiq
from modern_di import Container, Group, Scope, providers
from sqlalchemy import ForeignKey, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

import modern_di_replicas.fastapi
import modern_di_replicas.taskiq
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


# The tasks, imported by both programs

Orders = Annotated[OrderRepository, modern_di_taskiq.FromDI(OrderRepository)]


@taskiq.async_shared_broker.task
@read_intent
async def write_invoice(order_id: int, orders: Orders) -> str:
    return await orders.invoice(order_id)


@taskiq.async_shared_broker.task
async def pay(order_id: int, orders: Orders) -> None:
    await orders.pay(order_id)


def create_broker(redis_url: str) -> taskiq.AsyncBroker:
    results: RedisAsyncResultBackend[object] = RedisAsyncResultBackend(redis_url)
    broker = ListQueueBroker(redis_url).with_result_backend(results)
    taskiq.async_shared_broker.default_broker(broker)
    return broker


# The worker


def create_worker(settings: ReplicationSettings, redis_url: str) -> taskiq.AsyncBroker:
    container = Container(
        groups=[modern_di_replicas.taskiq.Dependencies, Repositories], context={ReplicationSettings: settings}
    )
    broker = create_broker(redis_url)
    # A task can wait for a replica instead of using the primary.
    modern_di_replicas.taskiq.setup_replicas(broker, container, wait=dt.timedelta(seconds=5))
    return broker


# The application

router = fastapi.APIRouter()


@router.post("/orders", status_code=201)
async def create_order(
    customer: str,
    cents: Annotated[list[int], fastapi.Query()],
    orders: Annotated[OrderRepository, modern_di_fastapi.FromDI(OrderRepository)],
) -> dict[str, object]:
    order = await orders.add(customer, cents)
    # After the commit. Type checkers do not know that the worker supplies the other arguments.
    task = await write_invoice.kiq(order.id)  # type: ignore[call-overload]  # as above
    return {"order": order.id, "task": task.task_id}


def create_app(settings: ReplicationSettings, redis_url: str) -> fastapi.FastAPI:
    container = Container(
        groups=[modern_di_replicas.fastapi.Dependencies, Repositories], context={ReplicationSettings: settings}
    )
    broker = create_broker(redis_url)
    modern_di_replicas.taskiq.setup_replicas(broker, container)

    @contextlib.asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> collections.abc.AsyncIterator[None]:
        await broker.startup()
        yield
        await broker.shutdown()

    app = fastapi.FastAPI(lifespan=lifespan)
    app.include_router(router)
    modern_di_replicas.fastapi.setup_replicas(app, container)
    return app


def settings() -> ReplicationSettings:
    return ReplicationSettings(primary=os.environ["PRIMARY_URL"], replicas=os.environ["REPLICA_URLS"].split())


def worker() -> taskiq.AsyncBroker:
    return create_worker(settings(), os.environ["REDIS_URL"])


def main() -> fastapi.FastAPI:
    return create_app(settings(), os.environ["REDIS_URL"])

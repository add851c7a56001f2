"""A request writes an order, and a job reads it right afterwards: the job carries a token.

A job is not a client of the application, so its reads do not know which writes they have to include. Therefore the
request adds `carried_token()` to the job. The worker opens a `unit_of_work` with it, which reads from a replica that
has the order or, if none has it yet, from the primary. The worker is a separate program; here the two share one
process, and an in-memory queue replaces yours, such as Redis: its messages are text.

Run it:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/shop
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2/shop postgresql+asyncpg://app:secret@db-3/shop"
    uvicorn --factory app:main
"""

import asyncio
import collections.abc
import contextlib
import dataclasses
import json
import os
import typing
from typing import Annotated

import fastapi
from modern_di import Container, Scope, providers
from modern_di_fastapi import FromDI
from sqlalchemy import ForeignKey, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from starlette.types import Lifespan

import modern_di_replicas.fastapi
from modern_di_replicas import (
    Dependencies,
    Intent,
    Monitor,
    ReplicaEngine,
    ReplicationSettings,
    carried_token,
    unit_of_work,
)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
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


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Job:
    """A message in the queue."""

    order_id: int
    after: str | None
    """The result of `carried_token`: the position that the job's reads have to include."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> typing.Self:
        return cls(**json.loads(text))


class Queue(asyncio.Queue[str]):
    """Replaces a queue between two programs."""


Deliver = collections.abc.Callable[[str], None]


# The application


class AppDependencies(modern_di_replicas.fastapi.Dependencies):
    queue = providers.ContextProvider(Queue, scope=Scope.APP)
    orders = providers.Factory(OrderRepository, scope=Scope.REQUEST)


router = fastapi.APIRouter()


@router.post("/orders", status_code=201)
async def create_order(
    customer: str,
    cents: Annotated[list[int], fastapi.Query()],
    orders: Annotated[OrderRepository, FromDI(OrderRepository)],
    queue: Annotated[Queue, FromDI(Queue)],
    container: Annotated[Container, FromDI(Container)],
) -> int:
    order = await orders.add(customer, cents)
    job = Job(order_id=order.id, after=carried_token(container))  # after the commit
    await queue.put(job.to_json())
    return order.id


def create_app(
    settings: ReplicationSettings, queue: Queue, lifespan: Lifespan[fastapi.FastAPI] | None = None
) -> fastapi.FastAPI:
    app = fastapi.FastAPI(lifespan=lifespan)
    app.include_router(router)
    container = Container(groups=[AppDependencies], context={ReplicationSettings: settings, Queue: queue})
    modern_di_replicas.fastapi.setup_replicas(app, container)
    return app


# The worker


class WorkerDependencies(Dependencies):
    orders = providers.Factory(OrderRepository, scope=Scope.REQUEST)


async def write_invoice(container: Container, job: Job) -> str:
    """Do one job, in a unit of work whose reads include the request's writes."""
    async with unit_of_work(container, intent=Intent.read(), token=job.after) as unit:
        return await unit.resolve(OrderRepository).invoice(job.order_id)


@contextlib.asynccontextmanager
async def worker_container(settings: ReplicationSettings) -> collections.abc.AsyncIterator[Container]:
    """Yield the container of a worker; its monitor knows the positions of the replicas."""
    async with (
        Container(groups=[WorkerDependencies], context={ReplicationSettings: settings}) as container,
        Monitor(container.resolve(ReplicaEngine)),
    ):
        yield container


async def work(settings: ReplicationSettings, queue: Queue, deliver: Deliver) -> None:
    """Do the jobs of a queue until it is cancelled. The handling of failed jobs depends on your queue."""
    async with worker_container(settings) as container:
        while True:
            deliver(await write_invoice(container, Job.from_json(await queue.get())))


# Both programs in one process


def main() -> fastapi.FastAPI:
    settings = ReplicationSettings(primary=os.environ["PRIMARY_URL"], replicas=os.environ["REPLICA_URLS"].split())
    queue = Queue()

    @contextlib.asynccontextmanager
    async def with_worker(_: fastapi.FastAPI) -> collections.abc.AsyncIterator[None]:
        worker = asyncio.create_task(work(settings, queue, print))
        yield
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker

    return create_app(settings, queue, with_worker)

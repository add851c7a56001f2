"""Tasks in a Celery worker: they read the writes of the request that queued them, from a replica that has them.

A task declares with `@read_intent` that it only reads; without it, it may write. The tokens are in the headers of the
messages. Queue a task after the commit: a task that is queued before reads from the primary.

The application is asynchronous, with asyncpg; the worker is synchronous, with psycopg.

Run it:

    export SERVERS="db-1/shop db-2/shop db-3/shop"
    export CREDENTIALS=app:secret
    export REDIS_URL=redis://queue-1
    celery --app 'app:worker()' worker
    uvicorn --factory app:main
"""

import datetime as dt
import os
from typing import Annotated

import celery
import fastapi
import modern_di_celery
import modern_di_fastapi
from modern_di import Container, Group, Scope, providers
from sqlalchemy import ForeignKey, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

import modern_di_replicas.celery
import modern_di_replicas.fastapi
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


# The worker


class Invoices:
    def __init__(self, session: Session) -> None:
        self.session = session

    def invoice(self, order_id: int) -> str:
        row = self.session.execute(
            select(Order.customer, func.sum(Item.cents))
            .join(Order.items)
            .where(Order.id == order_id)
            .group_by(Order.id)
        )
        customer, cents = row.one()
        return f"{customer} owes {cents / 100:.2f}"

    def pay(self, order_id: int) -> None:
        order = self.session.get_one(Order, order_id)
        order.paid = True
        self.session.commit()


class WorkerRepositories(Group):
    invoices = providers.Factory(Invoices, scope=Scope.REQUEST)


InInvoices = Annotated[Invoices, modern_di_celery.FromDI(Invoices)]


@celery.shared_task(base=modern_di_celery.DITask)
@read_intent
def write_invoice(order_id: int, invoices: InInvoices) -> str:
    return invoices.invoice(order_id)


@celery.shared_task(base=modern_di_celery.DITask)
def pay(order_id: int, invoices: InInvoices) -> None:
    invoices.pay(order_id)


def create_worker(settings: ReplicationSettings, redis_url: str) -> celery.Celery:
    app = celery.Celery("shop", broker=redis_url, backend=redis_url)
    container = Container(
        groups=[modern_di_replicas.celery.Dependencies, WorkerRepositories], context={ReplicationSettings: settings}
    )
    # A task can wait for a replica instead of using the primary.
    modern_di_replicas.celery.setup_replicas(app, container, wait=dt.timedelta(seconds=5))
    return app


# The application


class AppRepositories(Group):
    orders = providers.Factory(OrderRepository, scope=Scope.REQUEST)


router = fastapi.APIRouter()


@router.post("/orders", status_code=201)
async def create_order(
    customer: str,
    cents: Annotated[list[int], fastapi.Query()],
    orders: Annotated[OrderRepository, modern_di_fastapi.FromDI(OrderRepository)],
) -> dict[str, object]:
    order = await orders.add(customer, cents)
    task = write_invoice.delay(order.id)  # after the commit
    return {"order": order.id, "task": task.id}


def create_app(settings: ReplicationSettings, redis_url: str) -> fastapi.FastAPI:
    container = Container(
        groups=[modern_di_replicas.fastapi.Dependencies, AppRepositories], context={ReplicationSettings: settings}
    )
    queue = celery.Celery("shop", broker=redis_url, backend=redis_url)
    modern_di_replicas.celery.setup_replicas(queue, container)
    app = fastapi.FastAPI()
    app.state.queue = queue
    app.include_router(router)
    modern_di_replicas.fastapi.setup_replicas(app, container)
    return app


def settings(driver: str) -> ReplicationSettings:
    """Return the same servers for either driver."""
    credentials = os.environ["CREDENTIALS"]
    urls = [f"postgresql+{driver}://{credentials}@{server}" for server in os.environ["SERVERS"].split()]
    return ReplicationSettings(primary=urls[0], replicas=urls[1:])


def worker() -> celery.Celery:
    return create_worker(settings("psycopg"), os.environ["REDIS_URL"])


def main() -> fastapi.FastAPI:
    return create_app(settings("asyncpg"), os.environ["REDIS_URL"])

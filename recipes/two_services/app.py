"""Two services that share a database: the called service reads the writes of its caller, and vice versa.

The hooks of `modern_di_replicas.httpx` send the client's token with a request, and accept the token of the response.
Both services have the same `token_secret`.

Run it:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/shop
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2/shop postgresql+asyncpg://app:secret@db-3/shop"
    export TOKEN_SECRET=of-both-services
    uvicorn --factory app:billing --port 8001
    BILLING_URL=http://127.0.0.1:8001 uvicorn --factory app:orders --port 8000
"""

import collections.abc
import contextlib
import os
from typing import Annotated

import fastapi
import httpx
from modern_di import Container, Group, Scope, providers
from modern_di_fastapi import FromDI
from sqlalchemy import ForeignKey, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

import modern_di_replicas.fastapi
from modern_di_replicas import ReplicationSettings
from modern_di_replicas.httpx import event_hooks


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


class Repositories(Group):
    orders = providers.Factory(OrderRepository, scope=Scope.REQUEST)


Orders = Annotated[OrderRepository, FromDI(OrderRepository)]


# The called service

billing_router = fastapi.APIRouter()


@billing_router.get("/invoices/{order_id}")
async def get_invoice(order_id: int, orders: Orders) -> str:
    return await orders.invoice(order_id)


def create_billing(settings: ReplicationSettings) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    app.include_router(billing_router)
    container = Container(
        groups=[modern_di_replicas.fastapi.Dependencies, Repositories], context={ReplicationSettings: settings}
    )
    modern_di_replicas.fastapi.setup_replicas(app, container)
    return app


# The calling service


class OrdersDependencies(modern_di_replicas.fastapi.Dependencies):
    billing = providers.ContextProvider(httpx.AsyncClient, scope=Scope.APP)


orders_router = fastapi.APIRouter()


@orders_router.post("/orders", status_code=201)
async def create_order(
    customer: str,
    cents: Annotated[list[int], fastapi.Query()],
    orders: Orders,
    billing: Annotated[httpx.AsyncClient, FromDI(httpx.AsyncClient)],
) -> str:
    order = await orders.add(customer, cents)
    invoice = await billing.get(f"/invoices/{order.id}")  # after the commit, so that its token is sent
    return str(invoice.raise_for_status().json())


def create_orders(
    settings: ReplicationSettings, billing_url: str, transport: httpx.AsyncBaseTransport | None = None
) -> fastapi.FastAPI:
    container = Container(groups=[OrdersDependencies, Repositories], context={ReplicationSettings: settings})
    billing = httpx.AsyncClient(base_url=billing_url, transport=transport, event_hooks=event_hooks(container))
    container.set_context(httpx.AsyncClient, billing)

    @contextlib.asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> collections.abc.AsyncIterator[None]:
        async with billing:
            yield

    app = fastapi.FastAPI(lifespan=lifespan)
    app.include_router(orders_router)
    modern_di_replicas.fastapi.setup_replicas(app, container)
    return app


def settings() -> ReplicationSettings:
    return ReplicationSettings(
        primary=os.environ["PRIMARY_URL"],
        replicas=os.environ["REPLICA_URLS"].split(),
        token_secret=os.environ["TOKEN_SECRET"],
    )


def billing() -> fastapi.FastAPI:
    return create_billing(settings())


def orders() -> fastapi.FastAPI:
    return create_orders(settings(), os.environ["BILLING_URL"])

"""A shop on FastAPI: GET reads from a replica, POST writes to the primary, and exceptions have markers.

Run it:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/shop
    export REPLICA_URL=postgresql+asyncpg://app:secret@db-2/shop
    export ANALYTICS_URL=postgresql+asyncpg://app:secret@db-3/shop
    uvicorn --factory app:main
"""

import os
from typing import Annotated

import fastapi
from modern_di import Container, Scope, providers
from modern_di_fastapi import FromDI
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ForeignKey, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from modern_di_replicas import Replica, ReplicationSettings, read_intent, write_intent
from modern_di_replicas.fastapi import Dependencies, setup_replicas


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    visits: Mapped[int] = mapped_column(default=0)
    orders: Mapped[list["Order"]] = relationship(back_populates="customer", order_by="Order.id")


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"), index=True)
    cents: Mapped[int]
    customer: Mapped[Customer] = relationship(back_populates="orders")


class CustomerRepository:
    """Uses one session; contains no routing code."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def get(self, customer_id: int) -> Customer | None:
        return await self.session.get(Customer, customer_id, options=[selectinload(Customer.orders)])

    async def add(self, customer: Customer) -> Customer:
        self.session.add(customer)
        await self.session.commit()
        return customer

    async def count_visit(self, customer_id: int) -> Customer | None:
        customer = await self.get(customer_id)
        if customer is not None:
            customer.visits = Customer.visits + 1
            await self.session.commit()
            await self.session.refresh(customer, ["visits"])
        return customer

    async def spending_at_least(self, cents: int) -> list[Customer]:
        spent = select(func.sum(Order.cents)).where(Order.customer_id == Customer.id).scalar_subquery()
        found = await self.session.scalars(
            select(Customer).where(spent >= cents).order_by(Customer.id).options(selectinload(Customer.orders))
        )
        return list(found)


class AppDependencies(Dependencies):
    customers = providers.Factory(CustomerRepository, scope=Scope.REQUEST)


class OrderModel(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    cents: int


class NewCustomer(BaseModel):
    name: str
    orders: list[OrderModel] = []


class CustomerModel(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    visits: int
    orders: list[OrderModel]


class Search(BaseModel):
    spent_cents: int


Customers = Annotated[CustomerRepository, FromDI(CustomerRepository)]
router = fastapi.APIRouter()


@router.get("/customers/{customer_id}", response_model=CustomerModel)
async def read_customer(customer_id: int, customers: Customers) -> Customer:
    """Read from a replica, because it is a GET."""
    return found(await customers.get(customer_id))


@router.post("/customers", response_model=CustomerModel, status_code=201)
async def create_customer(new: NewCustomer, customers: Customers) -> Customer:
    """Write to the primary, because it is a POST."""
    orders = [Order(cents=order.cents) for order in new.orders]
    return await customers.add(Customer(name=new.name, visits=0, orders=orders))


@router.get("/customers/{customer_id}/profile", response_model=CustomerModel)
@write_intent
async def open_profile(customer_id: int, customers: Customers) -> Customer:
    """Write to the primary: a GET that counts visits."""
    return found(await customers.count_visit(customer_id))


@router.post("/customers/search", response_model=list[CustomerModel])
@read_intent(group="analytics")
async def search_customers(search: Search, customers: Customers) -> list[Customer]:
    """Read from the replica for analytics: a POST that only reads."""
    return await customers.spending_at_least(search.spent_cents)


def found(customer: Customer | None) -> Customer:
    if customer is None:
        raise fastapi.HTTPException(status_code=404)
    return customer


def create_app(settings: ReplicationSettings) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    app.include_router(router)
    setup_replicas(app, Container(groups=[AppDependencies], context={ReplicationSettings: settings}))
    return app


def main() -> fastapi.FastAPI:
    settings = ReplicationSettings(
        primary=os.environ["PRIMARY_URL"],
        replicas=[os.environ["REPLICA_URL"], Replica(os.environ["ANALYTICS_URL"], groups={"analytics"})],
    )
    return create_app(settings)

"""Two ways to override the routing: by the intent of a request, or by its engine.

The application uses RPC: every call is a POST, so the name of the call determines its intent, not the method.

Run it:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/stock
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2/stock postgresql+asyncpg://app:secret@db-3/stock"
    uvicorn --factory app:main
"""

import os
from typing import Annotated

import fastapi
from modern_di import Container, Scope, providers
from modern_di_fastapi import FromDI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from modern_di_replicas import Intent, PrimaryEngine, ReplicaEngine, ReplicationSettings, choose_engine, declared_intent
from modern_di_replicas.fastapi import Dependencies, request_intent, setup_replicas


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"

    sku: Mapped[str] = mapped_column(primary_key=True)
    quantity: Mapped[int]


class StockRepository:
    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def quantities(self) -> dict[str, int]:
        rows = await self.session.execute(select(Item.sku, Item.quantity).order_by(Item.sku))
        return {row.sku: row.quantity for row in rows}

    async def set_quantity(self, sku: str, quantity: int) -> None:
        await self.session.merge(Item(sku=sku, quantity=quantity))
        await self.session.commit()


# 1. Another predicate. It reads the call's name, and leaves every other request to the markers and the method.


def rpc_intent(container: Container, declared: Intent | None, request: fastapi.Request | None = None) -> Intent:
    if request is not None and request.url.path.startswith(("/rpc/get_", "/rpc/list_")):
        return Intent.read(reason="a call that gets or lists")
    return request_intent(container, declared, request)


class RpcDependencies(Dependencies):
    # `declared` is the intent in the context of a job's unit of work, if any.
    intent = providers.Factory(rpc_intent, scope=Scope.REQUEST, cache=True, kwargs={"declared": declared_intent})


# 2. Another choice, for cases that an intent cannot express: a switch that disables the replicas at runtime.


class Switch:
    def __init__(self) -> None:
        self.replicas_are_used = True


def choose_unless_switched_off(
    switch: Switch, intent: Intent, primary: PrimaryEngine, replica: ReplicaEngine
) -> AsyncEngine:
    return choose_engine(intent, primary, replica) if switch.replicas_are_used else primary


class AppDependencies(RpcDependencies):
    switch = providers.Factory(Switch, scope=Scope.APP, cache=True)
    engine = providers.Factory(choose_unless_switched_off, scope=Scope.REQUEST, cache=True)
    stock = providers.Factory(StockRepository, scope=Scope.REQUEST)


Stock = Annotated[StockRepository, FromDI(StockRepository)]
router = fastapi.APIRouter()


@router.post("/rpc/list_quantities")
async def list_quantities(stock: Stock) -> dict[str, int]:
    return await stock.quantities()


@router.post("/rpc/set_quantity")
async def set_quantity(sku: str, quantity: int, stock: Stock) -> dict[str, int]:
    await stock.set_quantity(sku, quantity)
    return await stock.quantities()


@router.get("/quantities")
async def read_quantities(stock: Stock) -> dict[str, int]:
    return await stock.quantities()


@router.put("/admin/replicas")
async def use_replicas(used: bool, switch: Annotated[Switch, FromDI(Switch)]) -> None:
    switch.replicas_are_used = used


def create_app(settings: ReplicationSettings) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    app.include_router(router)
    setup_replicas(app, Container(groups=[AppDependencies], context={ReplicationSettings: settings}))
    return app


def main() -> fastapi.FastAPI:
    return create_app(
        ReplicationSettings(primary=os.environ["PRIMARY_URL"], replicas=os.environ["REPLICA_URLS"].split())
    )

"""Replicas of unequal size: weights, a group for reports, lag limits, and affinity for the reads of a client.

Run it:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/shop
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2/shop postgresql+asyncpg://app:secret@db-3/shop"
    uvicorn --factory app:main
"""

import collections.abc
import dataclasses
import datetime as dt
import os
from typing import Annotated, TypeVar

import fastapi
from modern_di import Container, Scope, providers
from modern_di_fastapi import FromDI
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from modern_di_replicas import (
    Balancing,
    Candidate,
    Intent,
    LeastInUse,
    Replica,
    ReplicationSettings,
    declared_intent,
    read_intent,
)
from modern_di_replicas.fastapi import Dependencies, request_intent, setup_replicas


CandidateT = TypeVar("CandidateT", bound=Candidate)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]


class OrderRepository:
    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def count(self) -> int:
        return await self.session.scalar(select(func.count(Order.id))) or 0

    async def add(self, amount: int) -> None:
        self.session.add(Order(amount=amount))
        await self.session.commit()

    async def total(self) -> int:
        return await self.session.scalar(select(func.coalesce(func.sum(Order.amount), 0))) or 0


class PreferLocal:
    """A custom balancer: the replica in this rack while it has free connections, otherwise the least used other one."""

    local = "small"

    def __init__(self) -> None:
        self._others = LeastInUse()

    def choose(self, candidates: collections.abc.Sequence[CandidateT]) -> CandidateT:
        for candidate in candidates:
            if candidate.name == self.local and candidate.has_room:
                return candidate
        return self._others.choose(candidates)


def shop_intent(container: Container, declared: Intent | None, request: fastapi.Request | None = None) -> Intent:
    """Decide as usual, and keep the reads of a user on one replica, so that they do not go back in time."""
    intent = request_intent(container, declared, request)
    user = request.headers.get("x-user") if request is not None else None
    if user is None or intent.is_write:
        return intent
    # Like Intent.read(affinity=user), with the group of the marker and the name of the endpoint kept.
    return dataclasses.replace(intent, affinity=user)


class ShopDependencies(Dependencies):
    intent = providers.Factory(shop_intent, scope=Scope.REQUEST, cache=True, kwargs={"declared": declared_intent})
    orders = providers.Factory(OrderRepository, scope=Scope.REQUEST)


def fleet(
    primary: str, large: str, small: str, balancing: Balancing | type[PreferLocal] = "least-in-use"
) -> ReplicationSettings:
    """Return the settings; with `balancing=PreferLocal` the weights are ignored."""
    return ReplicationSettings(
        primary=primary,
        replicas=[
            # Nine of ten requests. Customers read from it, so its lag is limited.
            Replica(large, "large", weight=9, max_lag=dt.timedelta(seconds=2)),
            # One of ten requests, and all reports, whose data may be an hour old.
            Replica(small, "small", groups={"default", "reports"}, max_lag=dt.timedelta(hours=1)),
        ],
        balancing=balancing,
    )


Orders = Annotated[OrderRepository, FromDI(OrderRepository)]
router = fastapi.APIRouter()


@router.get("/orders/count")
async def count_orders(orders: Orders) -> int:
    return await orders.count()


@router.post("/orders", status_code=201)
async def add_order(amount: int, orders: Orders) -> None:
    await orders.add(amount)


@router.post("/reports/turnover")
@read_intent(group="reports")
async def turnover(orders: Orders) -> int:
    return await orders.total()


def create_app(settings: ReplicationSettings) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    app.include_router(router)
    setup_replicas(app, Container(groups=[ShopDependencies], context={ReplicationSettings: settings}))
    return app


def main() -> fastapi.FastAPI:
    large, small = os.environ["REPLICA_URLS"].split()
    return create_app(fleet(os.environ["PRIMARY_URL"], large, small))

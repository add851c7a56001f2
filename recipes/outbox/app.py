"""An outbox: an event is a row written in the transaction it reports, and its handler reads that transaction's writes.

During the transaction its position is not known yet. The relay sees only committed rows, so a token created afterwards
includes them. It publishes the event with that token, and marks the row in a separate transaction; an event may be
delivered twice, and none is lost.

Run the relay and the handler, here in one process with an in-memory queue instead of yours:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/shop
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2/shop postgresql+asyncpg://app:secret@db-3/shop"
    python app.py
"""

import asyncio
import collections.abc
import dataclasses
import datetime as dt
import json
import os
import typing

from modern_di import Container, Scope, providers
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from modern_di_replicas import (
    Dependencies,
    Intent,
    Monitor,
    ReplicaEngine,
    ReplicationSettings,
    Tokens,
    unit_of_work,
)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]


class OutboxRow(Base):
    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int]
    sent: Mapped[bool] = mapped_column(default=False, index=True)


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Event:
    """A message in the queue."""

    order_id: int
    token: str
    """The position that the reads of its handler have to include."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> typing.Self:
        return cls(**json.loads(text))


class Orders:
    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def place(self, customer: str) -> int:
        order = Order(customer=customer)
        self.session.add(order)
        await self.session.flush()
        self.session.add(OutboxRow(order_id=order.id))
        await self.session.commit()
        return order.id

    async def customer_of(self, order_id: int) -> str | None:
        return await self.session.scalar(select(Order.customer).where(Order.id == order_id))

    async def unsent(self) -> collections.abc.Sequence[OutboxRow]:
        rows = select(OutboxRow).where(~OutboxRow.sent).order_by(OutboxRow.id).limit(100)
        return (await self.session.scalars(rows.with_for_update(skip_locked=True))).all()


class AppDependencies(Dependencies):
    orders = providers.Factory(Orders, scope=Scope.REQUEST, cache=True)


Publish = collections.abc.Callable[[str], collections.abc.Awaitable[None]]


async def relay(container: Container, publish: Publish) -> int:
    """Publish the events in the outbox; return their number."""
    tokens = container.resolve(Tokens)
    async with unit_of_work(container) as unit:
        orders = unit.resolve(Orders)
        rows = await orders.unsent()
        now = await tokens.now()  # read after the rows; None while the primary does not answer the monitor
        for row in rows:
            event = Event(order_id=row.order_id, token="unknown" if now is None else tokens.encode(now))
            await publish(event.to_json())
            row.sent = True
        await orders.session.commit()
        return len(rows)


async def handle(container: Container, text: str) -> str:
    """Handle an event: a handler can wait for a replica that has the order."""
    event = Event.from_json(text)
    intent = Intent.read(wait=dt.timedelta(seconds=5))
    async with unit_of_work(container, intent=intent, token=event.token) as unit:
        return f"Thank you, {await unit.resolve(Orders).customer_of(event.order_id)}"


def create_container(settings: ReplicationSettings) -> Container:
    return Container(groups=[AppDependencies], context={ReplicationSettings: settings})


async def main() -> None:
    settings = ReplicationSettings(primary=os.environ["PRIMARY_URL"], replicas=os.environ["REPLICA_URLS"].split())
    queue: asyncio.Queue[str] = asyncio.Queue()
    async with create_container(settings) as container, Monitor(container.resolve(ReplicaEngine)):
        await relay(container, queue.put)
        while not queue.empty():
            print(await handle(container, await queue.get()))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())

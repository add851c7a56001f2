"""SQLAlchemy's `Session` and nothing else: the barest way to load an object by its own means.

One synchronous session in one greenlet, in autocommit, with a statement that is built before: no `AsyncSession`, no
container, no choice of a server. It only reads by key.
"""

import contextlib
import typing

from sqlalchemy import Engine, bindparam, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from benchmarks.contenders.contender import Contender
from benchmarks.schema import Book
from benchmarks.servers import READING_CONNECTIONS, Servers
from benchmarks.work.operations import Run


Answer = dict[str, typing.Any]

READ: typing.Final = select(Book).where(Book.id == bindparam("key"))


def _read(engine: Engine, key: int) -> Answer:
    with Session(engine, expire_on_commit=False) as session:
        book = session.scalars(READ, {"key": key}).one()
        return {"id": book.id, "title": book.title, "copies": book.copies}


async def orm_read(engine: Engine, key: int) -> Answer:
    answer: Answer = await greenlet_spawn(_read, engine, key)
    return answer


class OrmAlone(Contender):
    work: typing.ClassVar[dict[str, Run]] = {orm_read.__name__: orm_read}

    def __init__(self, servers: Servers) -> None:
        self._engine = create_async_engine(
            servers.replicas[0], isolation_level="AUTOCOMMIT", pool_size=READING_CONNECTIONS, max_overflow=0
        )

    async def __aexit__(self, *_: object) -> None:
        await self._engine.dispose()

    def unit_of_work(self, *, writes: bool) -> contextlib.AbstractAsyncContextManager[Engine]:  # noqa: ARG002  # it only reads
        return contextlib.nullcontext(self._engine.sync_engine)

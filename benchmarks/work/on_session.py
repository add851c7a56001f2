"""The operations as an application on SQLAlchemy performs them, in any contender's session."""

import typing

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from benchmarks.schema import Book
from benchmarks.work.operations import Answer, Run


async def orm_read(session: AsyncSession, key: int) -> Answer:
    book = await session.get_one(Book, key)
    return {"id": book.id, "title": book.title, "copies": book.copies}


async def core_read(session: AsyncSession, key: int) -> Answer:
    row = (await session.execute(select(Book.id, Book.title, Book.copies).where(Book.id == key))).one()
    return {"id": row.id, "title": row.title, "copies": row.copies}


async def list_100(session: AsyncSession, key: int) -> Answer:
    first = min(key, 900)
    chosen = select(Book).where(Book.id.between(first, first + 99)).options(joinedload(Book.author, innerjoin=True))
    return {"books": [[book.id, book.title, book.author.name] for book in await session.scalars(chosen)]}


async def write(session: AsyncSession, key: int) -> Answer:
    added = update(Book).where(Book.id == key).values(copies=Book.copies + 1).returning(Book.copies)
    copies = (await session.execute(added)).scalar_one()
    await session.commit()
    return {"copies": copies}


async def witness(session: AsyncSession, key: int) -> Answer:
    row = (await session.execute(select(Book.copies, func.pg_is_in_recovery()).where(Book.id == key))).one()
    return {"copies": row[0], "replica": row[1]}


WORK: typing.Final[dict[str, Run]] = {run.__name__: run for run in (orm_read, core_read, list_100, write, witness)}

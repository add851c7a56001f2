"""The tables of the benchmark and their rows."""

import typing

from sqlalchemy import ForeignKey, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


BOOKS: typing.Final = 1000
AUTHORS: typing.Final = 50


class Base(DeclarativeBase): ...


class Author(Base):
    __tablename__ = "authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    copies: Mapped[int]
    author_id: Mapped[int] = mapped_column(ForeignKey(Author.id))
    author: Mapped[Author] = relationship()


async def create(primary: str) -> None:
    """Create and fill the tables."""
    engine = create_async_engine(primary)
    authors = "INSERT INTO authors SELECT n, 'Author ' || n FROM generate_series(1, :authors) n"
    books = "INSERT INTO books SELECT n, 'Book ' || n, 0, 1 + n % :authors FROM generate_series(1, :books) n"
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text(authors), {"authors": AUTHORS})
        await connection.execute(text(books), {"authors": AUTHORS, "books": BOOKS})
        await connection.execute(text("ANALYZE"))
    await engine.dispose()

"""The tables of the benchmark and what is in them."""

import typing

import asyncpg
from sqlalchemy import ForeignKey, make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.schema import CreateTable

from benchmarks.servers import dsn


BOOKS: typing.Final = 1000
AUTHORS: typing.Final = 50
DIALECT: typing.Final = make_url("postgresql://").get_dialect()()


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
    """Make the tables and fill them."""
    connection = await asyncpg.connect(dsn(primary))
    try:
        for table in Base.metadata.sorted_tables:
            await connection.execute(str(CreateTable(table).compile(dialect=DIALECT)))
        await connection.execute(
            f"INSERT INTO authors SELECT n, 'Author ' || n FROM generate_series(1, {AUTHORS}) n;"  # noqa: S608  # ours
            f"INSERT INTO books SELECT n, 'Book ' || n, 0, 1 + n % {AUTHORS} FROM generate_series(1, {BOOKS}) n;"
            "ANALYZE"
        )
    finally:
        await connection.close()

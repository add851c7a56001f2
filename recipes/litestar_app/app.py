"""A library on Litestar: GET reads from a replica, POST writes to the primary, and a controller can override this.

Run it:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/library
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2/library postgresql+asyncpg://app:secret@db-3/library"
    uvicorn --factory app:main
"""

import dataclasses
import os

import litestar
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, JSONBody
from modern_di import Container, Group, Scope, providers
from sqlalchemy import ForeignKey, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship

from modern_di_replicas import Intent, ReplicationSettings, read_intent
from modern_di_replicas.litestar import Dependencies, ReplicasPlugin


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author")


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    copies: Mapped[int]
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"), index=True)
    author: Mapped[Author] = relationship(back_populates="books")


class BookRepository:
    """Uses one session; contains no routing code."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def get(self, book_id: int) -> Book:
        book = await self.session.get(Book, book_id, options=[joinedload(Book.author)])
        if book is None:
            raise NotFoundException
        return book

    async def add(self, *, title: str, author: str, copies: int) -> Book:
        written_by = await self.session.scalar(select(Author).where(Author.name == author))
        book = Book(title=title, copies=copies, author=written_by or Author(name=author))
        self.session.add(book)
        await self.session.commit()
        return book

    async def with_title(self, words: str) -> list[Book]:
        matching = select(Book).where(Book.title.icontains(words, autoescape=True)).order_by(Book.id)
        return list(await self.session.scalars(matching.options(joinedload(Book.author))))


class Repositories(Group):
    books = providers.Factory(BookRepository, scope=Scope.REQUEST)


@dataclasses.dataclass
class NewBook:
    title: str
    author: str
    copies: int = 1


@dataclasses.dataclass
class BookView:
    id: int
    title: str
    author: str
    copies: int


@dataclasses.dataclass
class Search:
    words: str


class Catalogue(litestar.Controller):
    path = "/books"

    @litestar.get("/{book_id:int}")
    async def read_book(self, book_id: FromPath[int], books: NamedDependency[BookRepository]) -> BookView:
        """Read from a replica, because it is a GET."""
        return view(await books.get(book_id))

    @litestar.post()
    async def add_book(self, data: JSONBody[NewBook], books: NamedDependency[BookRepository]) -> BookView:
        """Write to the primary, because it is a POST."""
        return view(await books.add(title=data.title, author=data.author, copies=data.copies))

    @litestar.post("/search", status_code=200)
    @read_intent
    async def search(self, data: JSONBody[Search], books: NamedDependency[BookRepository]) -> list[BookView]:
        """Read from a replica: a POST that only reads."""
        return [view(book) for book in await books.with_title(data.words)]


class Lending(litestar.Controller):
    """The desk counts copies and needs current data: all its handlers use the primary, GET included."""

    path = "/desk"
    opt = {"intent": Intent.write()}  # noqa: RUF012  # as Litestar's documentation writes it

    @litestar.get("/books/{book_id:int}")
    async def copies_left(self, book_id: FromPath[int], books: NamedDependency[BookRepository]) -> BookView:
        return view(await books.get(book_id))


def view(book: Book) -> BookView:
    return BookView(id=book.id, title=book.title, author=book.author.name, copies=book.copies)


def create_app(settings: ReplicationSettings) -> litestar.Litestar:
    container = Container(groups=[Dependencies, Repositories], context={ReplicationSettings: settings})
    # Autowired: every handler can take `books` by its name.
    return litestar.Litestar([Catalogue, Lending], plugins=[ReplicasPlugin(container, autowired_groups=[Repositories])])


def main() -> litestar.Litestar:
    return create_app(
        ReplicationSettings(primary=os.environ["PRIMARY_URL"], replicas=os.environ["REPLICA_URLS"].split())
    )

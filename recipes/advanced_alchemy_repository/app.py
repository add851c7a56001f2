"""An Advanced Alchemy repository on the injected session: it reads from a replica and writes to the primary.

Advanced Alchemy's own routing is not used; the session routes its statements.

Run it:

    pip install advanced-alchemy
    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/library
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2/library postgresql+asyncpg://app:secret@db-3/library"
    uvicorn --factory app:main
"""

import os
from typing import Annotated

import fastapi
from advanced_alchemy.base import BigIntBase
from advanced_alchemy.exceptions import NotFoundError
from advanced_alchemy.filters import LimitOffset, OrderBy
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from modern_di import Container, Scope, providers
from modern_di_fastapi import FromDI
from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from modern_di_replicas import ReplicationSettings, write_intent
from modern_di_replicas.fastapi import Dependencies, setup_replicas


class Book(BigIntBase):
    __tablename__ = "books"

    title: Mapped[str]
    copies: Mapped[int] = mapped_column(default=1)


class BookRepository(SQLAlchemyAsyncRepository[Book]):
    model_type = Book

    # An explicit signature tells modern-di what to inject.
    def __init__(self, session: AsyncSession) -> None:
        super().__init__(session=session, auto_commit=True)


class AppDependencies(Dependencies):
    books = providers.Factory(BookRepository, scope=Scope.REQUEST)


class NewBook(BaseModel):
    title: str
    copies: int = 1


class BookModel(NewBook):
    model_config = ConfigDict(from_attributes=True)

    id: int


class Page(BaseModel):
    total: int
    books: list[BookModel]


Books = Annotated[BookRepository, FromDI(BookRepository)]
router = fastapi.APIRouter()


@router.get("/books")
async def list_books(books: Books, limit: int = 10, offset: int = 0) -> Page:
    found, total = await books.get_many_and_count(LimitOffset(limit, offset), OrderBy("id"))
    return Page(total=total, books=[BookModel.model_validate(book) for book in found])


@router.get("/books/{book_id}", response_model=BookModel)
async def read_book(book_id: int, books: Books) -> Book:
    return await books.get(book_id)


@router.post("/books", response_model=BookModel, status_code=201)
async def add_book(new: NewBook, books: Books) -> Book:
    return await books.add(Book(**new.model_dump()))


# These methods load the book before they change it: on the primary, because the method is not GET.


@router.put("/books/{book_id}", response_model=BookModel)
async def put_book(book_id: int, new: NewBook, books: Books) -> Book:
    return await books.upsert(Book(id=book_id, **new.model_dump()))


@router.patch("/books/{book_id}", response_model=BookModel)
async def change_copies(book_id: int, copies: int, books: Books) -> Book:
    return await books.update(Book(id=book_id, copies=copies))


@router.delete("/books/{book_id}", response_model=BookModel)
async def delete_book(book_id: int, books: Books) -> Book:
    return await books.delete(book_id)


# A GET that updates needs the marker. Without it, the book would be loaded from a replica, which may be behind, and
# its update would raise StaleWriteError.


@router.get("/books/{book_id}/borrow", response_model=BookModel)
@write_intent
async def borrow_book(book_id: int, books: Books) -> Book:
    book = await books.get(book_id, with_for_update=True)
    book.copies -= 1
    return await books.update(book)


async def not_found(_: fastapi.Request, error: Exception) -> fastapi.Response:
    return fastapi.responses.JSONResponse({"detail": str(error)}, status_code=404)


def create_app(settings: ReplicationSettings) -> fastapi.FastAPI:
    app = fastapi.FastAPI(exception_handlers={NotFoundError: not_found})
    app.include_router(router)
    setup_replicas(app, Container(groups=[AppDependencies], context={ReplicationSettings: settings}))
    return app


def main() -> fastapi.FastAPI:
    return create_app(
        ReplicationSettings(primary=os.environ["PRIMARY_URL"], replicas=os.environ["REPLICA_URLS"].split())
    )

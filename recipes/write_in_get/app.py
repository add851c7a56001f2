"""A GET that writes, with and without the marker, and how to find handlers without it.

In production a write escalates (`on_write="escalate"`): the request moves to the primary, and one warning per handler
is logged. In tests and CI it raises (`on_write="raise"`): the request fails before anything is sent, and the error
names the handler and the statement.

Run it:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/magazine
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2/magazine postgresql+asyncpg://app:secret@db-3/magazine"
    export ON_WRITE=raise  # in tests and CI; leave it out in production
    uvicorn --factory app:main
"""

import os
from typing import Annotated, cast

import fastapi
from modern_di import Container, Scope, providers
from modern_di_fastapi import FromDI
from pydantic import BaseModel, ConfigDict
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from modern_di_replicas import OnWrite, ReplicationSettings, write_intent
from modern_di_replicas.fastapi import Dependencies, setup_replicas


class Base(DeclarativeBase):
    pass


class Article(Base):
    __tablename__ = "articles"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    views: Mapped[int] = mapped_column(default=0)


class ArticleRepository:
    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def count_view(self, article_id: int) -> Article | None:
        """Count in a statement: the server increments its own value, so no view is lost."""
        count = update(Article).where(Article.id == article_id).values(views=Article.views + 1).returning(Article)
        article = await self.session.scalar(count)
        await self.session.commit()
        return article

    async def count_view_of_object(self, article_id: int) -> Article | None:
        """Count on an object: the written number is computed from the loaded one, whichever server it is from."""
        article = await self.session.get(Article, article_id)
        if article is not None:
            article.views += 1
            await self.session.commit()
        return article


class AppDependencies(Dependencies):
    articles = providers.Factory(ArticleRepository, scope=Scope.REQUEST)


class ArticleModel(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    title: str
    views: int


Articles = Annotated[ArticleRepository, FromDI(ArticleRepository)]
router = fastapi.APIRouter()

# Correct: the marker sends the whole request to the primary.


@router.get("/articles/{article_id}", response_model=ArticleModel)
@write_intent
async def read_article(article_id: int, articles: Articles) -> Article:
    return found(await articles.count_view(article_id))


@router.get("/articles/{article_id}/object", response_model=ArticleModel)
@write_intent
async def read_article_as_object(article_id: int, articles: Articles) -> Article:
    return found(await articles.count_view_of_object(article_id))


# Wrong: the same two without the marker. The first works after an escalation; the second is a StaleWriteError.


@router.get("/unmarked/{article_id}", response_model=ArticleModel)
async def read_unmarked(article_id: int, articles: Articles) -> Article:
    return found(await articles.count_view(article_id))


@router.get("/unmarked/{article_id}/object", response_model=ArticleModel)
async def read_unmarked_as_object(article_id: int, articles: Articles) -> Article:
    return found(await articles.count_view_of_object(article_id))


def found(article: Article | None) -> Article:
    if article is None:
        raise fastapi.HTTPException(status_code=404)
    return article


def create_app(settings: ReplicationSettings) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    app.include_router(router)
    setup_replicas(app, Container(groups=[AppDependencies], context={ReplicationSettings: settings}))
    return app


def main() -> fastapi.FastAPI:
    settings = ReplicationSettings(
        primary=os.environ["PRIMARY_URL"],
        replicas=os.environ["REPLICA_URLS"].split(),
        on_write=cast(OnWrite, os.environ.get("ON_WRITE", "escalate")),  # checked by the settings
    )
    return create_app(settings)

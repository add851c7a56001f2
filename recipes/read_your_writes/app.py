"""A magazine where a client sees its own comment at once: each read declares its consistency, by default SESSION.

- The feed is the same for all clients: EVENTUAL, from any healthy replica.
- The comments have the default, SESSION: a client sees its own comments, and a replica serves all other reads.
- The dashboard may be a minute old: Bounded.
- The balance decides whether a payment is possible: STRONG, from the primary.

No further code is needed: a cookie carries the position of the client's last write to its next request.

Run it:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/magazine
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2/magazine postgresql+asyncpg://app:secret@db-3/magazine"
    export TOKEN_SECRETS="what signs the cookie"
    uvicorn --factory app:main
"""

import datetime as dt
import os
from typing import Annotated

import fastapi
from modern_di import Container, Scope, providers
from modern_di_fastapi import FromDI
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ForeignKey, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from modern_di_replicas import EVENTUAL, STRONG, Bounded, ReplicationSettings, read_intent
from modern_di_replicas.fastapi import Dependencies, setup_replicas


class Base(DeclarativeBase):
    pass


class Reader(Base):
    __tablename__ = "readers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    cents: Mapped[int] = mapped_column(default=0)
    comments: Mapped[list["Comment"]] = relationship(back_populates="reader")


class Comment(Base):
    __tablename__ = "comments"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    reader_id: Mapped[int] = mapped_column(ForeignKey("readers.id"), index=True)
    reader: Mapped[Reader] = relationship(back_populates="comments")


class Magazine:
    """Uses one session; contains no code for tokens or replicas."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def comment(self, reader_id: int, text: str) -> Comment:
        comment = Comment(reader_id=reader_id, text=text)
        self.session.add(comment)
        await self.session.commit()
        return comment

    async def newest(self) -> list[Comment]:
        return list(await self.session.scalars(select(Comment).order_by(Comment.id.desc()).limit(10)))

    async def comments_of(self, reader_id: int) -> list[Comment]:
        of_reader = select(Comment).where(Comment.reader_id == reader_id)
        return list(await self.session.scalars(of_reader.order_by(Comment.id)))

    async def count(self) -> int:
        return await self.session.scalar(select(func.count(Comment.id))) or 0

    async def pay_in(self, reader_id: int, cents: int) -> None:
        reader = await self.session.get_one(Reader, reader_id, with_for_update=True)
        reader.cents += cents
        await self.session.commit()

    async def balance(self, reader_id: int) -> int:
        return (await self.session.get_one(Reader, reader_id)).cents


class AppDependencies(Dependencies):
    magazine = providers.Factory(Magazine, scope=Scope.REQUEST)


class CommentModel(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    text: str


MagazineOfRequest = Annotated[Magazine, FromDI(Magazine)]
router = fastapi.APIRouter()


@router.post("/readers/{reader_id}/comments", response_model=CommentModel, status_code=201)
async def post_comment(reader_id: int, text: str, magazine: MagazineOfRequest) -> Comment:
    """Write to the primary; the response carries a token."""
    return await magazine.comment(reader_id, text)


@router.get("/readers/{reader_id}/comments", response_model=list[CommentModel])
async def read_comments(reader_id: int, magazine: MagazineOfRequest) -> list[Comment]:
    """Read the client's own comments, and those of others up to `max_lag` ago."""
    return await magazine.comments_of(reader_id)


@router.get("/feed", response_model=list[CommentModel])
@read_intent(consistency=EVENTUAL)
async def read_feed(magazine: MagazineOfRequest) -> list[Comment]:
    """Read from any replica: the latest comments may be missing."""
    return await magazine.newest()


@router.get("/dashboard")
@read_intent(consistency=Bounded(lag=dt.timedelta(minutes=1)))
async def read_dashboard(magazine: MagazineOfRequest) -> int:
    """Read from a replica that is at most a minute behind."""
    return await magazine.count()


@router.post("/readers/{reader_id}/payments", status_code=204)
async def pay_in(reader_id: int, cents: int, magazine: MagazineOfRequest) -> None:
    """Write to the primary."""
    await magazine.pay_in(reader_id, cents)


@router.get("/readers/{reader_id}/balance")
@read_intent(consistency=STRONG)
async def read_balance(reader_id: int, magazine: MagazineOfRequest) -> int:
    """Read from the primary: another request may just have made a payment."""
    return await magazine.balance(reader_id)


def create_app(settings: ReplicationSettings) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    app.include_router(router)
    setup_replicas(app, Container(groups=[AppDependencies], context={ReplicationSettings: settings}))
    return app


def main() -> fastapi.FastAPI:
    settings = ReplicationSettings(
        primary=os.environ["PRIMARY_URL"],
        replicas=os.environ["REPLICA_URLS"].split(),
        # The last secret signs, and all are accepted, so that secrets can be rotated. Without a secret, tokens are
        # unsigned, and compared with the primary's position.
        token_secret=os.environ["TOKEN_SECRETS"].split(",") if "TOKEN_SECRETS" in os.environ else None,
    )
    return create_app(settings)

"""Jobs outside a request: one declares that it only reads, the other declares nothing and may write.

Run it:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/blog
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2/blog postgresql+asyncpg://app:secret@db-3/blog"
    python app.py
"""

import asyncio
import os

from modern_di import Container, Scope, providers
from sqlalchemy import ForeignKey, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from modern_di_replicas import Dependencies, Intent, Monitor, ReplicaEngine, ReplicationSettings, unit_of_work


class Base(DeclarativeBase):
    pass


class Post(Base):
    __tablename__ = "posts"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    comments: Mapped[list["Comment"]] = relationship(back_populates="post")


class Comment(Base):
    __tablename__ = "comments"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    is_spam: Mapped[bool] = mapped_column(default=False)
    post_id: Mapped[int] = mapped_column(ForeignKey("posts.id"), index=True)
    post: Mapped[Post] = relationship(back_populates="comments")


class PostRepository:
    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def count_comments(self) -> dict[str, int]:
        rows = await self.session.execute(
            select(Post.title, func.count(Comment.id).label("comments"))
            .outerjoin(Post.comments)
            .group_by(Post.id)
            .order_by(Post.id)
        )
        return {row.title: row.comments for row in rows}

    async def delete_spam(self) -> int:
        deleted = await self.session.scalars(delete(Comment).where(Comment.is_spam).returning(Comment.id))
        count = len(deleted.all())
        await self.session.commit()
        return count


class Jobs(Dependencies):
    posts = providers.Factory(PostRepository, scope=Scope.REQUEST)


# In a web application, pass the application's own container: its jobs then share its connections, and these two
# functions do not change.


async def report(container: Container) -> dict[str, int]:
    """Count the comments of each post, on a replica."""
    async with unit_of_work(container, intent=Intent.read()) as job:
        return await job.resolve(PostRepository).count_comments()


async def clean_up(container: Container) -> int:
    """Delete the spam and return the number of rows, on the primary: an undeclared job may write."""
    async with unit_of_work(container) as job:
        return await job.resolve(PostRepository).delete_spam()


def create_container(settings: ReplicationSettings) -> Container:
    return Container(groups=[Jobs], context={ReplicationSettings: settings})


async def main() -> None:
    settings = ReplicationSettings(primary=os.environ["PRIMARY_URL"], replicas=os.environ["REPLICA_URLS"].split())
    async with create_container(settings) as container, Monitor(container.resolve(ReplicaEngine)):
        print(f"Deleted {await clean_up(container)} spam comments.")  # noqa: T201
        print(await report(container))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())

"""A script without asyncio: it counts rows on a replica in several threads, and cleans up on the primary.

Run it:

    export PRIMARY_URL=postgresql+psycopg://app:secret@db-1/blog
    export REPLICA_URLS="postgresql+psycopg://app:secret@db-2/blog postgresql+psycopg://app:secret@db-3/blog"
    python app.py
"""

import concurrent.futures
import os

from modern_di import Container
from sqlalchemy import ForeignKey, delete, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from modern_di_replicas import Intent, ReplicationSettings
from modern_di_replicas.sync import Dependencies, Monitor, ReplicaEngine, unit_of_work


class Base(DeclarativeBase):
    pass


class Post(Base):
    __tablename__ = "posts"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


class Comment(Base):
    __tablename__ = "comments"

    id: Mapped[int] = mapped_column(primary_key=True)
    is_spam: Mapped[bool] = mapped_column(default=False)
    post_id: Mapped[int] = mapped_column(ForeignKey("posts.id"), index=True)


def delete_spam(container: Container) -> int:
    """Delete the spam and return the number of rows, on the primary: an undeclared unit of work may write."""
    with unit_of_work(container) as unit:
        session = unit.resolve(Session)
        deleted = session.scalars(delete(Comment).where(Comment.is_spam).returning(Comment.id)).all()
        session.commit()
        return len(deleted)


def titles(container: Container) -> dict[int, str]:
    with unit_of_work(container, intent=Intent.read()) as unit:
        return {post.id: post.title for post in unit.resolve(Session).scalars(select(Post).order_by(Post.id))}


def count_comments(container: Container, post: int) -> int:
    """Count the comments of one post on a replica; each thread has a separate unit of work."""
    with unit_of_work(container, intent=Intent.read()) as unit:
        return unit.resolve(Session).scalar(select(func.count()).where(Comment.post_id == post)) or 0


def report(container: Container) -> dict[str, int]:
    posts = titles(container)
    with concurrent.futures.ThreadPoolExecutor(max_workers=4) as executor:
        counts = executor.map(lambda post: count_comments(container, post), posts)
        return dict(zip(posts.values(), counts, strict=True))


def create_container(settings: ReplicationSettings) -> Container:
    return Container(groups=[Dependencies], context={ReplicationSettings: settings})


def main() -> None:
    settings = ReplicationSettings(primary=os.environ["PRIMARY_URL"], replicas=os.environ["REPLICA_URLS"].split())
    with create_container(settings) as container, Monitor(container.resolve(ReplicaEngine)):
        print(f"Deleted {delete_spam(container)} spam comments.")  # noqa: T201
        print(report(container))  # noqa: T201


if __name__ == "__main__":
    main()

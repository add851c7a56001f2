"""A to-do list as an example for tests: test_app.py runs each test in a transaction that is rolled back.

Run it:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/todo
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2/todo postgresql+asyncpg://app:secret@db-3/todo"
    uvicorn --factory app:main
"""

import os
from typing import Annotated

import fastapi
from modern_di import Container, Scope, providers
from modern_di_fastapi import FromDI
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.fastapi import Dependencies, setup_replicas


class Base(DeclarativeBase):
    pass


class Task(Base):
    __tablename__ = "tasks"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(unique=True)


class TaskRepository:
    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def titles(self) -> list[str]:
        return list(await self.session.scalars(select(Task.title).order_by(Task.id)))

    async def add(self, title: str) -> None:
        self.session.add(Task(title=title))
        try:
            await self.session.commit()
        except IntegrityError as error:
            await self.session.rollback()
            raise fastapi.HTTPException(status_code=409, detail="there is such a task") from error


class AppDependencies(Dependencies):
    tasks = providers.Factory(TaskRepository, scope=Scope.REQUEST)


Tasks = Annotated[TaskRepository, FromDI(TaskRepository)]
router = fastapi.APIRouter()


@router.get("/tasks")
async def read_tasks(tasks: Tasks) -> list[str]:
    return await tasks.titles()


@router.post("/tasks", status_code=201)
async def add_task(title: str, tasks: Tasks) -> None:
    await tasks.add(title)


def create_app(settings: ReplicationSettings) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    app.include_router(router)
    setup_replicas(app, Container(groups=[AppDependencies], context={ReplicationSettings: settings}))
    return app


def main() -> fastapi.FastAPI:
    return create_app(
        ReplicationSettings(primary=os.environ["PRIMARY_URL"], replicas=os.environ["REPLICA_URLS"].split())
    )

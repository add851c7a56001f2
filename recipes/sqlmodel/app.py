"""SQLModel: `exec()` on the injected session, on a replica for a read and on the primary for a write.

Run it:

    pip install sqlmodel
    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/heroes
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2/heroes postgresql+asyncpg://app:secret@db-3/heroes"
    uvicorn --factory app:main
"""

import os
from typing import Annotated

import fastapi
from modern_di import Container, Scope, providers
from modern_di_fastapi import FromDI
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelSession

from modern_di_replicas import ReplicationSettings, RoutedSession, close_session, create_session
from modern_di_replicas.fastapi import Dependencies, setup_replicas


class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str


class HeroSession(RoutedSession, SQLModelSession):
    """SQLModel's session, with routing."""


def create_hero_session(session: RoutedSession) -> HeroSession:
    """Return the session of the unit of work under its own type."""
    assert isinstance(session, HeroSession)
    return session


class AppDependencies(Dependencies):
    session = providers.Factory(
        create_session,
        scope=Scope.REQUEST,
        cache=providers.CacheSettings(finalizer=close_session),
        kwargs={"session_class": HeroSession},
    )
    hero_session = providers.Factory(create_hero_session, scope=Scope.REQUEST)


Session = Annotated[HeroSession, FromDI(HeroSession)]
router = fastapi.APIRouter()


@router.get("/heroes")
async def list_heroes(session: Session) -> list[Hero]:
    return list((await session.exec(select(Hero).order_by(Hero.name))).all())


@router.post("/heroes", status_code=201)
async def add_hero(hero: Hero, session: Session) -> Hero:
    session.add(hero)
    await session.commit()
    return hero


def create_app(settings: ReplicationSettings) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    app.include_router(router)
    setup_replicas(app, Container(groups=[AppDependencies], context={ReplicationSettings: settings}))
    return app


def main() -> fastapi.FastAPI:
    return create_app(
        ReplicationSettings(primary=os.environ["PRIMARY_URL"], replicas=os.environ["REPLICA_URLS"].split())
    )

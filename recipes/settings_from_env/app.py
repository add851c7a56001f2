"""Settings from the environment: with the library alone, or as part of a pydantic-settings model.

Run it:

    export DB_PRIMARY=postgresql+asyncpg://app:secret@db-1/shop
    export DB_REPLICAS=postgresql+asyncpg://app:secret@db-2/shop,postgresql+asyncpg://app:secret@db-3/shop
    export DB_MAX_LAG=5 DB_CONSISTENCY=session
    uvicorn --factory app:main

With pydantic-settings, one model has these variables and those of the application: `app:main_of_model`.
"""

import datetime as dt
from typing import Annotated

import fastapi
from modern_di import Container
from modern_di_fastapi import FromDI
from pydantic import Field, PostgresDsn, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.fastapi import Dependencies, setup_replicas


router = fastapi.APIRouter()


@router.get("/standby")
async def is_standby(session: Annotated[AsyncSession, FromDI(AsyncSession)]) -> bool:
    return bool(await session.scalar(text("SELECT pg_is_in_recovery()")))


class AppSettings(BaseSettings):
    """The application's settings; a nested list is JSON: `DB_REPLICAS='["postgresql+asyncpg://..."]'`."""

    model_config = SettingsConfigDict(env_prefix="DB_")

    title: str = "Shop"
    primary: PostgresDsn
    replicas: list[SecretStr] = Field(default_factory=list)
    max_lag: float = 10
    """Seconds."""

    def replication(self) -> ReplicationSettings:
        return ReplicationSettings(
            primary=str(self.primary),
            replicas=[url.get_secret_value() for url in self.replicas],
            max_lag=dt.timedelta(seconds=self.max_lag),
        )


def create_app(settings: ReplicationSettings, title: str = "Shop") -> fastapi.FastAPI:
    app = fastapi.FastAPI(title=title)
    app.include_router(router)
    setup_replicas(app, Container(groups=[Dependencies], context={ReplicationSettings: settings}))
    return app


def main() -> fastapi.FastAPI:
    return create_app(ReplicationSettings.from_env("DB_"))


def main_of_model() -> fastapi.FastAPI:
    settings = AppSettings.model_validate({})  # from the environment
    return create_app(settings.replication(), settings.title)

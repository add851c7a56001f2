"""An API behind pgbouncer in transaction mode, with a rotated password.

Run it:

    export PRIMARY_URL=postgresql+psycopg://app@pooler-1:6432/shop
    export REPLICA_URLS="postgresql+psycopg://app@pooler-2:6432/shop postgresql+psycopg://app@pooler-3:6432/shop"
    export PASSWORD_FILE=/run/secrets/app
    uvicorn --factory app:main

psycopg sends a statement as one batch of messages, so reads stay in autocommit behind a pooler. With asyncpg the
library reads in transactions there, and logs it.
"""

import os
import pathlib
from typing import Annotated

import fastapi
from modern_di import Container
from modern_di_fastapi import FromDI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.fastapi import Dependencies, setup_replicas


router = fastapi.APIRouter()
Session = Annotated[AsyncSession, FromDI(AsyncSession)]


@router.get("/visits")
async def count(session: Session) -> int:
    return await session.scalar(text("SELECT count(*) FROM visits")) or 0


@router.post("/visits")
async def visit(session: Session) -> int:
    number = await session.scalar(text("INSERT INTO visits DEFAULT VALUES RETURNING n"))
    await session.commit()
    return number or 0


def settings_for(primary: str, replicas: list[str], password_file: pathlib.Path) -> ReplicationSettings:
    def password() -> str:  # called for each new connection of the pools and the monitor
        return password_file.read_text().strip()

    return ReplicationSettings(
        primary=primary, replicas=replicas, pooled=True, connect_args={"password": password}, catch_up_wait=0.1
    )


def create_app(settings: ReplicationSettings) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    app.include_router(router)
    setup_replicas(app, Container(groups=[Dependencies], context={ReplicationSettings: settings}))
    return app


def main() -> fastapi.FastAPI:
    replicas, file = os.environ["REPLICA_URLS"].split(), pathlib.Path(os.environ["PASSWORD_FILE"])
    return create_app(settings_for(os.environ["PRIMARY_URL"], replicas, file))

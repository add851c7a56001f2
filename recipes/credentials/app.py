"""Passwords that expire: an IAM token of a cloud, or a lease of a vault, renewed before it expires.

Run it:

    export PRIMARY_URL=postgresql+asyncpg://app@db-1/shop
    export REPLICA_URLS="postgresql+asyncpg://app@db-2/shop postgresql+asyncpg://app@db-3/shop"
    export PASSWORD_FILE=/run/secrets/app
    uvicorn --factory app:main

The pools and the monitor call `password` for each new connection. Open connections stay: PostgreSQL checks a password
only at the start of a session. `pool_recycle` replaces them after a while, for servers that close them.
"""

import asyncio
import collections.abc
import os
import pathlib
import time
from typing import Annotated

import fastapi
from modern_di import Container
from modern_di_fastapi import FromDI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.fastapi import Dependencies, setup_replicas


LIFETIME = 15 * 60.0
"""Seconds for which a password is valid, as in AWS IAM."""

router = fastapi.APIRouter()


@router.get("/standby")
async def is_standby(session: Annotated[AsyncSession, FromDI(AsyncSession)]) -> bool:
    return bool(await session.scalar(text("SELECT pg_is_in_recovery()")))


class Password:
    """Fetches a password, and a new one before it expires; concurrent connections share one fetch.

    `fetch` asks a service: for example boto3's `generate_db_auth_token`, or a vault's HTTP API.
    """

    def __init__(self, fetch: collections.abc.Callable[[], collections.abc.Awaitable[str]], lifetime: float) -> None:
        self._fetch = fetch
        self._lifetime = lifetime
        self._fetching = asyncio.Lock()
        self._value = ""
        self._ends = 0.0

    async def __call__(self) -> str:
        async with self._fetching:
            if time.monotonic() > self._ends - self._lifetime / 10:
                self._value = await self._fetch()
                self._ends = time.monotonic() + self._lifetime
            return self._value


def create_app(
    primary: str, replicas: list[str], password: collections.abc.Callable[[], collections.abc.Awaitable[str]]
) -> fastapi.FastAPI:
    settings = ReplicationSettings(
        primary=primary,
        replicas=replicas,
        connect_args={"password": password},
        engine_options={"pool_recycle": 10 * 60},
    )
    app = fastapi.FastAPI()
    app.include_router(router)
    setup_replicas(app, Container(groups=[Dependencies], context={ReplicationSettings: settings}))
    return app


def main() -> fastapi.FastAPI:
    file = pathlib.Path(os.environ["PASSWORD_FILE"])

    async def fetch() -> str:
        return (await asyncio.to_thread(file.read_text)).strip()

    return create_app(os.environ["PRIMARY_URL"], os.environ["REPLICA_URLS"].split(), Password(fetch, LIFETIME))

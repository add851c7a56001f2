"""TLS to every server, with a private CA, verified host names and a client certificate.

Run it:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1.internal/shop
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2.internal/shop"
    export CERTIFICATES=/etc/app/tls  # with ca.pem, client.pem and client.key
    uvicorn --factory app:main

The pools and the monitor use the same context. It is read once; a new certificate of a server that the same CA has
signed needs nothing. With psycopg, give the files instead: `sslmode`, `sslrootcert`, `sslcert` and `sslkey`.
"""

import os
import pathlib
import ssl
from typing import Annotated

import fastapi
from modern_di import Container
from modern_di_fastapi import FromDI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from modern_di_replicas import Replica, ReplicationSettings
from modern_di_replicas.fastapi import Dependencies, setup_replicas


router = fastapi.APIRouter()


@router.get("/standby")
async def is_standby(session: Annotated[AsyncSession, FromDI(AsyncSession)]) -> bool:
    return bool(await session.scalar(text("SELECT pg_is_in_recovery()")))


def verifying(folder: pathlib.Path) -> ssl.SSLContext:
    """Return a context that verifies a server like `verify-full`: by our CA, and by the host name of its URL."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "client.pem", folder / "client.key")
    return context


def settings_for(
    primary: str, replicas: list[str], folder: pathlib.Path, *, pooled: bool = False
) -> ReplicationSettings:
    return ReplicationSettings(
        primary=primary,
        # A server of another CA needs a separate context: Replica(url, connect_args={"ssl": another}).
        replicas=[Replica(url) for url in replicas],
        connect_args={"ssl": verifying(folder)},
        pooled=pooled,
    )


def create_app(settings: ReplicationSettings) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    app.include_router(router)
    setup_replicas(app, Container(groups=[Dependencies], context={ReplicationSettings: settings}))
    return app


def main() -> fastapi.FastAPI:
    folder = pathlib.Path(os.environ["CERTIFICATES"])
    return create_app(settings_for(os.environ["PRIMARY_URL"], os.environ["REPLICA_URLS"].split(), folder))

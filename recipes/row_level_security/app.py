"""Row-level security: PostgreSQL returns each tenant only its own rows, on the replicas and on the primary.

Every transaction starts by setting the tenant for this transaction only (like SET LOCAL, with a bound value). The
setting does not remain on the pooled connection, and after an escalation the transaction on the primary starts in the
same way.

This needs transactions, so the isolation of reads is READ COMMITTED: two more round trips per request. In autocommit,
the default, the setting would be gone before the next statement; the library detects this, and would send every
request to the primary.

The application connects as a role that does not own the tables: policies apply neither to owners nor to superusers.

    CREATE ROLE app LOGIN PASSWORD 'secret';
    GRANT USAGE ON SCHEMA public TO app;
    GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO app;
    GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO app;

Run it:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/notes
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2/notes postgresql+asyncpg://app:secret@db-3/notes"
    uvicorn --factory app:main
"""

import dataclasses
import os
from typing import Annotated

import fastapi
from modern_di import Container, Scope, providers
from modern_di_fastapi import FromDI
from sqlalchemy import Connection, event, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, SessionTransaction, mapped_column

from modern_di_replicas import Intent, PrimaryEngine, ReplicationSettings, close_session, create_session
from modern_di_replicas.fastapi import Dependencies, setup_replicas


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(server_default=text("current_setting('app.tenant')"), index=True)
    words: Mapped[str]


# For the migration that creates the table. Without a tenant the setting is NULL or empty, and no row is visible.
POLICIES = (
    "ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY tenant ON notes USING (tenant = current_setting('app.tenant', true))",
)


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Tenant:
    name: str


def request_tenant(request: fastapi.Request) -> Tenant:
    """Return the tenant of the request: here from a header, usually from the claims of a token."""
    name = request.headers.get("x-tenant", "")
    if not name:
        raise fastapi.HTTPException(status_code=401)
    return Tenant(name=name)


def create_tenant_session(tenant: Tenant, engine: AsyncEngine, primary: PrimaryEngine, intent: Intent) -> AsyncSession:
    session = create_session(engine, primary, intent)

    @event.listens_for(session.sync_session, "after_begin")
    def set_tenant(session: Session, transaction: SessionTransaction, connection: Connection) -> None:  # noqa: ARG001
        connection.execute(text("SELECT set_config('app.tenant', :tenant, true)"), {"tenant": tenant.name})

    return session


class NoteRepository:
    """Contains no tenant-specific code."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def all(self) -> list[str]:
        return list(await self.session.scalars(select(Note.words).order_by(Note.id)))

    async def add(self, words: str) -> None:
        self.session.add(Note(words=words))
        await self.session.commit()


class AppDependencies(Dependencies):
    tenant = providers.Factory(request_tenant, scope=Scope.REQUEST, cache=True)
    session = providers.Factory(
        create_tenant_session, scope=Scope.REQUEST, cache=providers.CacheSettings(finalizer=close_session)
    )
    notes = providers.Factory(NoteRepository, scope=Scope.REQUEST)


Notes = Annotated[NoteRepository, FromDI(NoteRepository)]
router = fastapi.APIRouter()


@router.get("/notes")
async def read_notes(notes: Notes) -> list[str]:
    return await notes.all()


@router.post("/notes", status_code=201)
async def add_note(words: str, notes: Notes) -> list[str]:
    await notes.add(words)
    return await notes.all()


@router.get("/notes/welcome")
async def welcome(notes: Notes) -> list[str]:
    """Read from a replica, and then escalate, with the same tenant."""
    if not await notes.all():
        await notes.add("Welcome!")
    return await notes.all()


def create_app(settings: ReplicationSettings) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    app.include_router(router)
    setup_replicas(app, Container(groups=[AppDependencies], context={ReplicationSettings: settings}))
    return app


def main() -> fastapi.FastAPI:
    settings = ReplicationSettings(
        primary=os.environ["PRIMARY_URL"],
        replicas=os.environ["REPLICA_URLS"].split(),
        read_isolation="READ COMMITTED",
    )
    return create_app(settings)

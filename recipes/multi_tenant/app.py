"""A schema per tenant: the header X-Tenant selects it, on the replicas and on the primary.

The schema is set on each connection of the session: for its reads on a replica, and on the primary, whether the
session starts there or escalates.

Run it:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/crm
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2/crm postgresql+asyncpg://app:secret@db-3/crm"
    uvicorn --factory app:main
"""

import dataclasses
import os
from typing import Annotated

import fastapi
from modern_di import Container, Scope, providers
from modern_di_fastapi import FromDI
from sqlalchemy import Connection, MetaData, event, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, SessionTransaction, mapped_column
from sqlalchemy.schema import CreateSchema

from modern_di_replicas import Intent, PrimaryEngine, ReplicationSettings, close_session, create_session
from modern_di_replicas.fastapi import Dependencies, setup_replicas


TENANTS = ("acme", "globex")


class Base(DeclarativeBase):
    # Not an existing schema: a statement without translation fails, instead of using the tables of a tenant.
    metadata = MetaData(schema="tenant")


class Contact(Base):
    __tablename__ = "contacts"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Tenant:
    schema: str


def request_tenant(request: fastapi.Request) -> Tenant:
    name = request.headers.get("x-tenant", "")
    if name not in TENANTS:
        raise fastapi.HTTPException(status_code=404, detail="there is no such tenant")
    return Tenant(schema=name)


def create_tenant_session(tenant: Tenant, engine: AsyncEngine, primary: PrimaryEngine, intent: Intent) -> AsyncSession:
    session = create_session(engine, primary, intent)

    @event.listens_for(session.sync_session, "after_begin")
    def choose_schema(session: Session, transaction: SessionTransaction, connection: Connection) -> None:  # noqa: ARG001
        connection.execution_options(schema_translate_map={"tenant": tenant.schema})

    return session


class ContactRepository:
    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def names(self) -> list[str]:
        return list(await self.session.scalars(select(Contact.name).order_by(Contact.id)))

    async def add(self, name: str) -> None:
        self.session.add(Contact(name=name))
        await self.session.commit()


class AppDependencies(Dependencies):
    tenant = providers.Factory(request_tenant, scope=Scope.REQUEST, cache=True)
    session = providers.Factory(
        create_tenant_session, scope=Scope.REQUEST, cache=providers.CacheSettings(finalizer=close_session)
    )
    contacts = providers.Factory(ContactRepository, scope=Scope.REQUEST)


Contacts = Annotated[ContactRepository, FromDI(ContactRepository)]
router = fastapi.APIRouter()


@router.get("/contacts")
async def read_contacts(contacts: Contacts) -> list[str]:
    return await contacts.names()


@router.post("/contacts", status_code=201)
async def add_contact(name: str, contacts: Contacts) -> list[str]:
    await contacts.add(name)
    return await contacts.names()


@router.get("/contacts/import")
async def import_contact(name: str, contacts: Contacts) -> list[str]:
    """Read from a replica, and then escalate, with the same tenant."""
    if name not in await contacts.names():
        await contacts.add(name)
    return await contacts.names()


async def create_tables(connection: AsyncConnection) -> None:
    """Create the schema of each tenant with its tables, on the primary."""
    for tenant in TENANTS:
        await connection.execute(CreateSchema(tenant))
        await connection.execution_options(schema_translate_map={"tenant": tenant})
        await connection.run_sync(Base.metadata.create_all)


def create_app(settings: ReplicationSettings) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    app.include_router(router)
    setup_replicas(app, Container(groups=[AppDependencies], context={ReplicationSettings: settings}))
    return app


def main() -> fastapi.FastAPI:
    return create_app(
        ReplicationSettings(primary=os.environ["PRIMARY_URL"], replicas=os.environ["REPLICA_URLS"].split())
    )

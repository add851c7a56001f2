"""An application with a small database, for packages that use our sessions and engines."""

import collections.abc
import contextlib
import dataclasses

import fastapi
import httpx
import pytest
from modern_di import Container
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from modern_di_replicas import Monitor, PrimaryEngine, ReplicaEngine, ReplicationSettings
from modern_di_replicas.fastapi import Dependencies, setup_replicas
from modern_di_replicas.testing import LocalCluster, RoutingLog


class Base(DeclarativeBase): ...


class Word(Base):
    __tablename__ = "word"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words:
    """A database with the words `one`, `two` and `three`."""

    cluster: LocalCluster
    container: Container
    log: RoutingLog

    @property
    def primary(self) -> PrimaryEngine:
        return self.container.resolve(PrimaryEngine)

    @property
    def replicas(self) -> ReplicaEngine:
        return self.container.resolve(ReplicaEngine)

    @contextlib.asynccontextmanager
    async def serving(self, app: fastapi.FastAPI) -> collections.abc.AsyncIterator[httpx.AsyncClient]:
        """Start an application with the container, and yield a client."""
        setup_replicas(app, self.container)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://words") as client,
        ):
            self.log.clear()
            yield client

    @contextlib.asynccontextmanager
    async def monitored(self) -> collections.abc.AsyncIterator[None]:
        """Run the monitor, as an application does."""
        async with self.container, Monitor(self.replicas):
            self.log.clear()
            yield

    def servers(self) -> set[str]:
        """Return the servers of the statements since the last call, and wait for the replicas to catch up."""
        servers = {"a replica" if visit.is_replica else "the primary" for visit in self.log.visits}
        self.cluster.catch_up()
        self.log.clear()
        return servers


@pytest.fixture
async def words(database: ReplicationSettings, replicated_cluster: LocalCluster, routing_log: RoutingLog) -> Words:
    engine = create_async_engine(database.declared_primary.url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Word), [{"text": text} for text in ("one", "two", "three")])
    await engine.dispose()
    replicated_cluster.catch_up()
    container = Container(groups=[Dependencies], context={ReplicationSettings: database})
    return Words(cluster=replicated_cluster, container=container, log=routing_log)

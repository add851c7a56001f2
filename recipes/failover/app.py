"""A demonstration of a switchover: the primary stops, a replica is promoted, the former primary returns as a replica.

The application follows without a restart or a new configuration. The program starts its own servers, with the extra
`testing` of this package. Run it:

    python app.py
"""

import asyncio
import collections.abc

import asyncpg
from modern_di import Container, Scope, providers
from sqlalchemy import exc, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from modern_di_replicas import Dependencies, Intent, Monitor, PrimaryEngine, ReplicaEngine, ReplicationSettings
from modern_di_replicas.testing import LocalCluster, LocalServer


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class NoteRepository:
    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def add(self, words: str) -> int:
        """Add a note, and return the port of the server that stored it."""
        self.session.add(Note(text=words))
        port = await self.session.scalar(text("SELECT inet_server_port()"))
        await self.session.commit()
        return port or 0

    async def count(self) -> tuple[int, int]:
        """Return the number of notes, and the port of the server that counted them."""
        row = (await self.session.execute(select(func.count(Note.id), func.inet_server_port()))).one()
        return row[0], row[1]


class NotesDependencies(Dependencies):
    notes = providers.Factory(NoteRepository, scope=Scope.REQUEST)


async def write(container: Container, words: str) -> int:
    """Write once. While there is no primary, a write fails; the application decides about retries."""
    async with asyncio.timeout(30):
        while True:
            try:
                async with container.build_child_container(scope=Scope.REQUEST) as unit_of_work:
                    return await unit_of_work.resolve(NoteRepository).add(words)
            except (exc.DBAPIError, exc.TimeoutError, OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.1)


async def read(container: Container) -> tuple[int, int]:
    async with container.build_child_container(scope=Scope.REQUEST, context={Intent: Intent.read()}) as unit_of_work:
        return await unit_of_work.resolve(NoteRepository).count()


async def read_from(container: Container, server: LocalServer) -> None:
    """Read until a given server has served a read."""
    async with asyncio.timeout(30):
        while (await read(container))[1] != server.port:
            pass


async def switch_over(cluster: LocalCluster) -> collections.abc.AsyncIterator[str]:
    """Perform a switchover, and print each step."""
    primary, first, second = cluster.servers
    names = {server.port: server.name for server in cluster.servers}
    settings = ReplicationSettings(primary=primary.url, replicas=[first.url, second.url])
    async with (
        Container(groups=[NotesDependencies], context={ReplicationSettings: settings}) as container,
        Monitor(container.resolve(ReplicaEngine)),
    ):
        async with container.resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield f"a write goes to {names[await write(container, 'before')]}"
        await asyncio.to_thread(cluster.catch_up)
        count, port = await read(container)
        yield f"a read sees {count} note on {names[port]}"

        await asyncio.to_thread(primary.stop)
        await asyncio.to_thread(first.promote)
        yield f"{primary.name} is stopped, {first.name} is promoted"
        yield f"a write goes to {names[await write(container, 'after')]}"

        await asyncio.to_thread(primary.follow, first)
        await asyncio.to_thread(second.follow, first)
        await asyncio.to_thread(cluster.catch_up)
        yield f"{primary.name} is back, as a replica"
        await read_from(container, primary)
        count, _ = await read(container)
        yield f"it serves reads, and a read sees {count} notes"


async def main() -> None:
    async with LocalCluster(replicas=2) as cluster:
        async for line in switch_over(cluster):
            print(line)  # noqa: T201  # a script talks to its reader


if __name__ == "__main__":
    asyncio.run(main())

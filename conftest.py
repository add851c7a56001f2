"""What the whole suite shares: clusters, a database for each example, and the examples of the documentation, executed.

A recipe's tests use two fixtures of this file: `database`, the settings of an empty database on the shared cluster,
and `visits`, the servers that ran its statements. Copy them along with the recipe.
"""

import asyncio
import collections.abc
import contextlib
import dataclasses
import pathlib
import typing

import fastapi
import httpx
import litestar
import pytest
import sybil
from modern_di import Container
from sqlalchemy import Connection, Engine, MetaData, event, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

from modern_di_replicas import Replica, ReplicationSettings
from modern_di_replicas.testing import LocalCluster, LocalServer


pytest_plugins = ["modern_di_replicas.testing.fixtures"]

# A server's own answer: its role first, then the name it was started with.
WHO: typing.Final = "SELECT CASE WHEN pg_is_in_recovery() THEN current_setting('cluster_name') ELSE 'primary' END"


@pytest.fixture(scope="session")
def database_for_examples(replicated_cluster: LocalCluster) -> ReplicationSettings:
    """Give the examples one database on the shared cluster: making one takes a second, emptying it nothing."""
    name = "examples"

    def url(server: LocalServer) -> str:
        return make_url(server.url).set(database=name).render_as_string(hide_password=False)

    replicated_cluster.primary.execute(f"CREATE DATABASE {name}")
    replicated_cluster.catch_up()
    replicas = [Replica(url(replica), replica.name) for replica in replicated_cluster.replicas]
    return ReplicationSettings(primary=url(replicated_cluster.primary), replicas=replicas)


@pytest.fixture
async def database(database_for_examples: ReplicationSettings) -> collections.abc.AsyncIterator[ReplicationSettings]:
    """Give an empty database to one test: a primary, and the replicas `replica-1` and `replica-2`."""
    yield database_for_examples
    await empty(database_for_examples)


@pytest.fixture
def visits() -> collections.abc.Iterator[list[str]]:
    """Give a list that grows by the name of the server that ran it for each statement: `primary`, `replica-1`, ..."""
    with recorded_visits() as visited:
        yield visited


async def empty(database: ReplicationSettings) -> None:
    owner = create_async_engine(database.primary)
    async with owner.begin() as connection:
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))
    await owner.dispose()


@contextlib.contextmanager
def recorded_visits() -> collections.abc.Iterator[list[str]]:
    visited: list[str] = []

    def ask(connection: Connection, *_: object) -> None:
        cursor = connection.connection.cursor()
        cursor.execute(WHO)
        visited.extend(row[0] for row in cursor.fetchall())
        cursor.close()

    event.listen(Engine, "after_cursor_execute", ask)
    try:
        yield visited
    finally:
        event.remove(Engine, "after_cursor_execute", ask)


@dataclasses.dataclass(kw_only=True, slots=True)
class Examples:
    """Serves the applications of a document with its own settings, except that the addresses are those of real servers.

    A document asserts with it in code blocks that are invisible where Markdown is rendered.
    """

    cluster: LocalCluster
    database: ReplicationSettings

    @staticmethod
    def page(path: str) -> str:
        """Return the text of a page, so that it can be compared with the code."""
        return (pathlib.Path(__file__).parent / path).read_text()

    def settings(self, written: ReplicationSettings) -> ReplicationSettings:
        """Return the settings a document shows, with real addresses in their order."""
        given = self.database.servers[: len(written.servers)]
        replicas = [
            dataclasses.replace(replica, url=real.url) for replica, real in zip(written.servers, given, strict=True)
        ]
        return dataclasses.replace(written, primary=self.database.primary, replicas=replicas)

    def servers_of(
        self,
        app: fastapi.FastAPI | litestar.Litestar,
        container: Container,
        *requests: str,
        tables: MetaData | None = None,
        **options: typing.Any,  # those of httpx
    ) -> list[str]:
        """Send requests such as `GET /users/1`, and return which server ran the statements of each."""
        container.validate()
        container.open()
        container.set_context(ReplicationSettings, self.settings(container.resolve(ReplicationSettings)))
        return asyncio.run(self._serve(app, requests, tables or MetaData(), options))

    async def _serve(
        self,
        app: fastapi.FastAPI | litestar.Litestar,
        requests: collections.abc.Iterable[str],
        tables: MetaData,
        options: dict[str, typing.Any],
    ) -> list[str]:
        owner = create_async_engine(self.database.primary)
        async with owner.begin() as connection:
            await connection.run_sync(tables.create_all)
        await owner.dispose()
        self.cluster.catch_up()
        lifespan = app.router.lifespan_context(app) if isinstance(app, fastapi.FastAPI) else app.lifespan()
        transport = httpx.ASGITransport(typing.cast(typing.Any, app))
        servers = []
        async with lifespan, httpx.AsyncClient(transport=transport, base_url="http://example") as client:
            for request in requests:
                with recorded_visits() as visited:
                    response = await client.request(*request.split(), **options)
                response.raise_for_status()
                servers.append(", ".join(sorted(set(visited))))
                self.cluster.catch_up()
        return servers


@pytest.fixture(scope="module")
def examples(
    replicated_cluster: LocalCluster, database_for_examples: ReplicationSettings
) -> collections.abc.Iterator[Examples]:
    """Give a document an empty database, and the means to show that what it says is true."""
    yield Examples(cluster=replicated_cluster, database=database_for_examples)
    asyncio.run(empty(database_for_examples))


class Page(sybil.Document):
    """A page of the documentation. It is one test: its blocks build on each other, and run in their order."""

    def examples(self) -> collections.abc.Iterator[sybil.Example]:
        """Give the last block, which stands for all."""
        yield from list(super().examples())[-1:]

    def blocks(self) -> collections.abc.Iterator[sybil.Example]:
        return super().examples()


def evaluate_page(example: sybil.Example) -> None:
    evaluate = PythonEvaluator()
    for block in typing.cast(Page, example.document).blocks():
        evaluate(block)


def name_the_module(namespace: dict[str, typing.Any]) -> None:
    """Give the code of a document a module name, as classes expect one."""
    namespace["__name__"] = "example"


pytest_collect_file = sybil.Sybil(
    parsers=[CodeBlockParser(language="python", evaluator=evaluate_page)],
    patterns=["*.md"],
    setup=name_the_module,
    fixtures=["examples"],
    document_types={".md": Page},
).pytest()

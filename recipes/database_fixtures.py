"""What the tests of the recipes share: an empty database for each test, and who ran its statements.

To test a recipe that you have copied, copy this file as well, and name it in the `conftest.py` at the top:

    pytest_plugins = ["modern_di_replicas.testing.fixtures", "database_fixtures"]
"""

import collections.abc
import contextlib
import typing

import pytest
from sqlalchemy import Connection, Engine, event, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from modern_di_replicas import Replica, ReplicationSettings
from modern_di_replicas.testing import LocalCluster, LocalServer


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
    owner = create_async_engine(database.declared_primary.url)
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

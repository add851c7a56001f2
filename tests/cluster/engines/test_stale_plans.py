"""A migration while the application runs: statements that were prepared before it."""

import collections.abc

import pytest
import sqlalchemy.exc
from sqlalchemy import text

from modern_di_replicas import RoutedSession
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import Servers, serving


READ = text("SELECT * FROM migrated")


@pytest.fixture
def migrated(replicated_cluster: LocalCluster) -> collections.abc.Iterator[collections.abc.Callable[[], None]]:
    """Give what changes the type of a column."""
    replicated_cluster.primary.execute("CREATE TABLE migrated (n int); INSERT INTO migrated VALUES (1)")
    replicated_cluster.catch_up()

    def migrate() -> None:
        replicated_cluster.primary.execute("ALTER TABLE migrated ALTER n TYPE text")
        replicated_cluster.catch_up()

    yield migrate
    replicated_cluster.primary.execute("DROP TABLE migrated")


async def prepare(servers: Servers) -> None:
    """Have every pooled connection prepare the statement."""
    for engine in (servers.primary, *servers.replica.engines.values()):
        async with RoutedSession(engine) as session:
            assert await session.scalar(READ) == 1


@pytest.mark.parametrize("isolation", ["AUTOCOMMIT", "READ COMMITTED"])
async def test_a_read_whose_plan_is_stale_on_every_server_has_its_result(
    replicated_cluster: LocalCluster, migrated: collections.abc.Callable[[], None], isolation: str
) -> None:
    """INVARIANT: on the replica and, should it fail there, on the primary: no user sees a migration."""
    async with serving(
        replicated_cluster, read_isolation=isolation, replicas=[replicated_cluster.replicas[0].url]
    ) as servers:
        await prepare(servers)
        migrated()
        async with servers.session() as session:
            assert await session.scalar(READ) == "1"
            assert session.decision.server != "primary" or isolation != "AUTOCOMMIT"
        async with RoutedSession(servers.primary) as session:
            assert await session.scalar(READ) == "1"


async def test_only_the_first_statement_of_a_transaction_is_run_again(
    replicated_cluster: LocalCluster, migrated: collections.abc.Callable[[], None]
) -> None:
    """INVARIANT: what the transaction has done before would be lost."""
    if "asyncpg" not in replicated_cluster.primary.url:
        pytest.skip("psycopg prepares a statement at its sixth execution only")
    async with serving(replicated_cluster) as servers:
        await prepare(servers)
        migrated()
        async with RoutedSession(servers.primary) as session:
            await session.execute(text("SELECT 1"))
            with pytest.raises(sqlalchemy.exc.DBAPIError, match="cached statement plan is invalid"):
                await session.scalar(READ)
            await session.rollback()
            assert await session.scalar(READ) == "1"


async def test_another_error_is_not_taken_for_a_stale_plan(replicated_cluster: LocalCluster) -> None:
    """It is raised, once."""
    async with serving(replicated_cluster) as servers, RoutedSession(servers.primary) as session:
        with pytest.raises(sqlalchemy.exc.ProgrammingError):
            await session.execute(text("SELECT no_such_column"))

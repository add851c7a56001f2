"""A schema migration while the application runs: statements prepared before it."""

import collections.abc

import pytest
import sqlalchemy.exc
from sqlalchemy import text

from modern_di_replicas import RoutedSession
from modern_di_replicas.testing import LocalCluster
from tests.pgbouncer import not_behind_a_pooler
from tests.session.conftest import Servers, serving


pytestmark = not_behind_a_pooler("nothing is prepared")


READ = text("SELECT * FROM migrated")


@pytest.fixture
def migrated(replicated_cluster: LocalCluster) -> collections.abc.Iterator[collections.abc.Callable[[], None]]:
    """Yield a function that changes the type of a column."""
    replicated_cluster.primary.execute("CREATE TABLE migrated (n int); INSERT INTO migrated VALUES (1)")
    replicated_cluster.catch_up()

    def migrate() -> None:
        replicated_cluster.primary.execute("ALTER TABLE migrated ALTER n TYPE text")
        replicated_cluster.catch_up()

    yield migrate
    replicated_cluster.primary.execute("DROP TABLE migrated")


async def prepare(servers: Servers) -> None:
    """Prepare the statement on every pooled connection."""
    for engine in (servers.primary, *servers.replica.engines.values()):
        async with RoutedSession(engine) as session:
            for _ in range(7):  # psycopg prepares a statement at its fifth execution
                assert await session.scalar(READ) == 1
                await session.commit()  # after a rollback, psycopg discards its prepared statements


@pytest.mark.parametrize("isolation", ["AUTOCOMMIT", "READ COMMITTED"])
async def test_a_read_with_a_stale_plan_on_every_server_succeeds(
    replicated_cluster: LocalCluster, migrated: collections.abc.Callable[[], None], isolation: str
) -> None:
    """INVARIANT: on the replica and, if it fails there, on the primary, so that users do not notice a migration."""
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
    """INVARIANT: earlier statements of the transaction would be lost."""
    async with serving(replicated_cluster) as servers:
        await prepare(servers)
        migrated()
        async with RoutedSession(servers.primary) as session:
            await session.execute(text("SELECT 1"))
            with pytest.raises(sqlalchemy.exc.DBAPIError, match=r"cached .*plan"):
                await session.scalar(READ)
            await session.rollback()
            assert await session.scalar(READ) == "1"


async def test_another_error_is_not_taken_for_a_stale_plan(replicated_cluster: LocalCluster) -> None:
    """It is raised once."""
    async with serving(replicated_cluster) as servers, RoutedSession(servers.primary) as session:
        with pytest.raises(sqlalchemy.exc.ProgrammingError):
            await session.execute(text("SELECT no_such_column"))


async def test_a_stale_plan_on_the_primary_in_autocommit_is_prepared_again(
    replicated_cluster: LocalCluster, migrated: collections.abc.Callable[[], None]
) -> None:
    """INVARIANT: psycopg discards a plan only at a rollback; in autocommit the statement would fail permanently."""
    async with serving(replicated_cluster) as servers:
        in_autocommit = servers.primary.execution_options(isolation_level="AUTOCOMMIT")
        async with in_autocommit.connect() as connection:
            for _ in range(7):
                assert await connection.scalar(READ) == 1
        migrated()
        for _ in range(2):
            async with in_autocommit.connect() as connection:
                assert await connection.scalar(READ) == "1"

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.testing import LocalCluster, empty_database, fixtures


# The plugin's fixtures, which replace those of this suite that reuse clusters.
disposable_cluster = fixtures.disposable_cluster


def test_the_shared_cluster_replicates(replicated_cluster: LocalCluster) -> None:
    """Commits on the primary are visible on both replicas."""
    replicated_cluster.primary.execute("CREATE TABLE fixture_rows AS SELECT 1 AS number")
    replicated_cluster.catch_up()

    answers = [replica.execute("SELECT number FROM fixture_rows") for replica in replicated_cluster.replicas]

    assert answers == ["1", "1"]


def test_the_disposable_cluster_is_another_one(
    replicated_cluster: LocalCluster, disposable_cluster: LocalCluster
) -> None:
    """Faults in it do not affect the others, and both run at the same time."""
    disposable_cluster.primary.stop("immediate")

    assert not disposable_cluster.primary.is_running()
    assert replicated_cluster.primary.execute("SELECT 1") == "1"


async def test_an_emptied_database_has_no_schemas_of_the_application(database: ReplicationSettings) -> None:
    """Otherwise a schema per tenant, of any name, would be left for the next test."""
    schemas = text(
        "SELECT string_agg(nspname, ' ' ORDER BY 1) FROM pg_namespace WHERE nspname !~ '^(pg_|information_)'"
    )
    engine = create_async_engine(database.declared_primary.url)
    try:
        async with engine.begin() as connection:
            await connection.execute(text('CREATE SCHEMA "tenant: ""Äpfel"""'))
            await connection.execute(text('CREATE TABLE "tenant: ""Äpfel""".item (id int)'))
            await connection.execute(text("CREATE TABLE item (id int)"))
        await empty_database(database)
        async with engine.connect() as connection:
            assert await connection.scalar(schemas) == "public"
            assert await connection.scalar(text("SELECT to_regclass('item')")) is None
    finally:
        await engine.dispose()

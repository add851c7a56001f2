"""Settings and empty databases for tests."""

import dataclasses
import typing

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from modern_di_replicas.servers import Replica
from modern_di_replicas.settings import ReplicationSettings
from modern_di_replicas.testing.cluster import LocalCluster


_SCHEMAS: typing.Final = """
SELECT pg_catalog.quote_ident(nspname) FROM pg_catalog.pg_namespace
WHERE nspname OPERATOR(pg_catalog.<>) 'information_schema' AND NOT pg_catalog.starts_with(nspname::text, 'pg_')
"""


# As in a new database: every account may use it.
MADE_ANEW: typing.Final = (
    "CREATE SCHEMA public AUTHORIZATION pg_database_owner",
    "GRANT USAGE ON SCHEMA public TO PUBLIC",
)


def create_database(cluster: LocalCluster, name: str) -> ReplicationSettings:
    """Create a database on a cluster, and return settings for it; the replicas have their names in the cluster.

    Args:
        cluster: a running cluster.
        name: the name of the new database.

    """

    def url(server_url: str) -> str:
        return make_url(server_url).set(database=name).render_as_string(hide_password=False)

    cluster.primary.execute(f'CREATE DATABASE "{name}"')
    cluster.catch_up()
    replicas = [Replica(url(replica.url), replica.name) for replica in cluster.replicas]
    return ReplicationSettings(primary=url(cluster.primary.url), replicas=replicas)


async def empty_database(settings: ReplicationSettings) -> None:
    """Drop all schemas except PostgreSQL's own, with their objects, and create an empty `public`."""
    owner = create_async_engine(settings.declared_primary.url)
    try:
        async with owner.begin() as connection:
            for schema in await connection.scalars(text(_SCHEMAS)):
                await connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
            for statement in MADE_ANEW:
                await connection.execute(text(statement))
    finally:
        await owner.dispose()


def strict(settings: ReplicationSettings) -> ReplicationSettings:
    """Return the same settings with `on_write="raise"`."""
    return dataclasses.replace(settings, on_write="raise")

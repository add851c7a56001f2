import asyncio
import collections.abc
import contextlib
import functools
import typing

import asyncpg
import pytest
from sqlalchemy import make_url
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateSequence, CreateTable

from modern_di_replicas import Intent, PrimaryEngine, ReplicaEngine, ReplicationSettings, RoutedSession
from modern_di_replicas.cluster.engines.create import create_primary_engine, create_replica_engine
from modern_di_replicas.testing import LocalCluster
from modern_di_replicas.testing.databases import MADE_ANEW
from tests.pgbouncer import behind_poolers
from tests.session.models import FUNCTIONS, Base, numbers
from tests.waiting import until


class Servers:
    """A primary and its replicas as a session sees them, with the schema and rows of the shop."""

    def __init__(self, cluster: LocalCluster, settings: ReplicationSettings) -> None:
        self.cluster = cluster
        self.settings = settings
        self.primary: PrimaryEngine = create_primary_engine(settings)
        self.replica: ReplicaEngine = create_replica_engine(settings, self.primary)

    def session(self, **options: typing.Any) -> RoutedSession:
        """Return the session of a unit of work that reads."""
        intent = Intent(access=Intent.read().access, reason="GET", endpoint="shop.show")
        return RoutedSession(self.replica, **{"intent": intent, "expire_on_commit": False, **options})

    def checked_out(self) -> int:
        topology = self.replica.topology
        pools: list[typing.Any] = [self.primary.pool, *(member.engine.pool for member in topology.servers)]
        assert all(pool.in_use == pool.checkedout() for pool in pools), "the balancer's count is the pool's own"
        return sum(pool.checkedout() for pool in pools)


Start = collections.abc.Callable[..., contextlib.AbstractAsyncContextManager[Servers]]


@contextlib.asynccontextmanager
async def serving(cluster: LocalCluster, **settings: typing.Any) -> collections.abc.AsyncIterator[Servers]:
    """Yield the servers of a cluster, and verify at the end that every connection was returned."""
    urls = {"primary": cluster.primary.url, "replicas": [server.url for server in cluster.replicas]}
    servers = Servers(cluster, ReplicationSettings(**behind_poolers({**urls, **settings})))
    try:
        yield servers
        assert servers.checked_out() == 0
    finally:
        await servers.replica.dispose()
        await servers.primary.dispose()


def _script() -> str:
    """Return the SQL that creates the shop as one text, because separate statements would slow each test down."""
    rendered = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy has no types there
    return ";\n".join(
        [
            "DROP SCHEMA public CASCADE",
            *MADE_ANEW,
            str(CreateSequence(numbers).compile(dialect=rendered)),
            *(str(CreateTable(table).compile(dialect=rendered)) for table in Base.metadata.sorted_tables),
            "CREATE SCHEMA tenant",
            "CREATE TABLE tenant.item (LIKE public.item INCLUDING ALL)",
            *FUNCTIONS,
            "INSERT INTO shop VALUES (1, 'corner')",
            "INSERT INTO item (id, shop_id, amount) SELECT n, 1, n * 10 FROM generate_series(1, 200) AS n",
            "INSERT INTO tenant.item VALUES (1, 1, 77)",
            "INSERT INTO account (id, balance, version) VALUES (1, 100, 1)",
        ]
    )


async def create_shop(cluster: LocalCluster, url: str | None = None) -> None:
    where = make_url(cluster.primary.url if url is None else url).set(drivername="postgresql")
    primary = await asyncpg.connect(where.render_as_string(hide_password=False))
    await primary.execute(_script())
    written = await primary.fetchval("SELECT pg_current_wal_flush_lsn()::text")
    await primary.close()
    for replica in cluster.replicas:
        standby = await asyncpg.connect(replica.dsn)
        question = f"SELECT pg_last_wal_replay_lsn() >= '{written}'"
        await until(functools.partial(standby.fetchval, question))
        await standby.close()


@pytest.fixture(scope="session")
def shop_cluster(replicated_cluster: LocalCluster) -> collections.abc.Iterator[LocalCluster]:
    """Yield the shared cluster with the shop schema; tests restore its rows."""
    asyncio.run(create_shop(replicated_cluster))
    yield replicated_cluster
    replicated_cluster.primary.execute(
        "; ".join(("DROP SCHEMA tenant CASCADE", "DROP SCHEMA public CASCADE", *MADE_ANEW))
    )


@pytest.fixture
def disposable_shop(disposable_cluster: LocalCluster) -> LocalCluster:
    """Yield a cluster with the shop schema, for tests that break servers."""
    asyncio.run(create_shop(disposable_cluster))
    return disposable_cluster

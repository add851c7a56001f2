import asyncio
import collections.abc
import contextlib
import typing

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import create_async_engine

from modern_di_replicas import Intent, PrimaryEngine, ReplicaEngine, ReplicationSettings, RoutedSession
from modern_di_replicas.cluster.engines.create import create_primary_engine, create_replica_engine
from modern_di_replicas.testing import LocalCluster
from modern_di_replicas.testing.databases import MADE_ANEW
from tests.pgbouncer import behind_poolers
from tests.session.models import FUNCTIONS, Account, Base, Item, Shop


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
    """Give the servers of a cluster, and check at the end that every connection came back."""
    urls = {"primary": cluster.primary.url, "replicas": [server.url for server in cluster.replicas]}
    servers = Servers(cluster, ReplicationSettings(**behind_poolers({**urls, **settings})))
    try:
        yield servers
        assert servers.checked_out() == 0
    finally:
        await servers.replica.dispose()
        await servers.primary.dispose()


async def create_shop(cluster: LocalCluster, url: str | None = None) -> None:
    engine = create_async_engine(cluster.primary.url if url is None else url)
    async with engine.begin() as connection:
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        for statement in MADE_ANEW:
            await connection.execute(text(statement))
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("CREATE SCHEMA tenant"))
        await connection.execute(text("CREATE TABLE tenant.item (LIKE public.item INCLUDING ALL)"))
        for function in FUNCTIONS:
            await connection.execute(text(function))
        await connection.execute(insert(Shop), [{"id": 1, "name": "corner"}])
        await connection.execute(insert(Item), [{"id": n, "shop_id": 1, "amount": n * 10} for n in range(1, 201)])
        await connection.execute(text("INSERT INTO tenant.item VALUES (1, 1, 77)"))
        await connection.execute(insert(Account), [{"id": 1, "balance": 100, "version": 1}])
    await engine.dispose()
    cluster.catch_up()


@pytest.fixture(scope="session")
def shop_cluster(replicated_cluster: LocalCluster) -> collections.abc.Iterator[LocalCluster]:
    """Give the shared cluster with the shop in it; tests leave its rows as they found them."""
    asyncio.run(create_shop(replicated_cluster))
    yield replicated_cluster
    replicated_cluster.primary.execute(
        "; ".join(("DROP SCHEMA tenant CASCADE", "DROP SCHEMA public CASCADE", *MADE_ANEW))
    )


@pytest.fixture
def disposable_shop(disposable_cluster: LocalCluster) -> LocalCluster:
    """Give a cluster with the shop in it, to break."""
    asyncio.run(create_shop(disposable_cluster))
    return disposable_cluster

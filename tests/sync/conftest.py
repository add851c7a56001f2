import asyncio
import collections.abc
import contextlib
import typing

import pytest
from sqlalchemy import make_url

from modern_di_replicas import Intent, ReplicationSettings
from modern_di_replicas.sync import PrimaryEngine, ReplicaEngine, RoutedSession
from modern_di_replicas.sync.engines import create_primary_engine, create_replica_engine
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import create_shop


def synchronous(url: str) -> str:
    """Return the URL of a server with the driver of synchronous applications."""
    return make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def settings_of(cluster: LocalCluster, **options: typing.Any) -> ReplicationSettings:
    urls = {
        "primary": synchronous(cluster.primary.url),
        "replicas": [synchronous(server.url) for server in cluster.replicas],
    }
    return ReplicationSettings(**{**urls, **options})


class Servers:
    """A primary and its replicas as a synchronous session sees them."""

    def __init__(self, cluster: LocalCluster, settings: ReplicationSettings) -> None:
        self.cluster = cluster
        self.settings = settings
        self.primary: PrimaryEngine = create_primary_engine(settings)
        self.replica: ReplicaEngine = create_replica_engine(settings, self.primary)

    def session(self, **options: typing.Any) -> RoutedSession:
        """Return the session of a unit of work that reads."""
        intent = Intent(access=Intent.read().access, reason="GET", endpoint="shop.show")
        return RoutedSession(self.replica, **{"intent": intent, **options})

    def checked_out(self) -> int:
        pools: list[typing.Any] = [
            self.primary.pool,
            *(server.engine.pool for server in self.replica.topology.servers),
        ]
        return sum(pool.checkedout() for pool in pools)


@contextlib.contextmanager
def serving(cluster: LocalCluster, **settings: typing.Any) -> collections.abc.Iterator[Servers]:
    """Give the servers of a cluster, and check at the end that every connection came back."""
    servers = Servers(cluster, settings_of(cluster, **settings))
    try:
        yield servers
        assert servers.checked_out() == 0
    finally:
        servers.replica.dispose()
        servers.primary.dispose()


@pytest.fixture(scope="session")
def sync_shop_cluster(replicated_cluster: LocalCluster) -> collections.abc.Iterator[LocalCluster]:
    """Give the shared cluster with the shop in it; tests leave its rows as they found them."""
    asyncio.run(create_shop(replicated_cluster))
    yield replicated_cluster
    replicated_cluster.primary.execute("DROP SCHEMA tenant CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public")


@pytest.fixture
def servers(sync_shop_cluster: LocalCluster) -> collections.abc.Iterator[Servers]:
    with serving(sync_shop_cluster) as servers:
        yield servers


@pytest.fixture
def disposable_shop(disposable_cluster: LocalCluster) -> LocalCluster:
    """Give a cluster with the shop in it, to break."""
    asyncio.run(create_shop(disposable_cluster))
    return disposable_cluster

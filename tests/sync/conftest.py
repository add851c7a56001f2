import asyncio
import collections.abc
import contextlib
import dataclasses
import typing

import pytest
from sqlalchemy import make_url

from modern_di_replicas import Intent, Replica, ReplicationSettings
from modern_di_replicas.sync import PrimaryEngine, ReplicaEngine, RoutedSession
from modern_di_replicas.sync.engines import create_primary_engine, create_replica_engine
from modern_di_replicas.testing import LocalCluster, create_database
from tests.session.conftest import create_shop


def synchronous(url: str) -> str:
    """Return the URL of a server with the synchronous driver."""
    return make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def settings_of(where: LocalCluster | ReplicationSettings, **options: typing.Any) -> ReplicationSettings:
    """Return synchronous settings for a cluster, or for a database in it."""
    if isinstance(where, LocalCluster):
        primary, replicas = where.primary.url, [Replica(server.url) for server in where.replicas]
    else:
        primary, replicas = where.declared_primary.url, list(where.servers)
    urls = {
        "primary": synchronous(primary),
        "replicas": [dataclasses.replace(replica, url=synchronous(replica.url)) for replica in replicas],
    }
    return ReplicationSettings(**{**urls, **options})


class Servers:
    """A primary and its replicas as a synchronous session sees them."""

    def __init__(self, settings: ReplicationSettings) -> None:
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
def serving(where: LocalCluster | ReplicationSettings, **settings: typing.Any) -> collections.abc.Iterator[Servers]:
    """Yield the servers of a cluster, and verify at the end that every connection was returned."""
    servers = Servers(settings_of(where, **settings))
    try:
        yield servers
        assert servers.checked_out() == 0
    finally:
        servers.replica.dispose()
        servers.primary.dispose()


@pytest.fixture(scope="session")
def shop(replicated_cluster: LocalCluster) -> ReplicationSettings:
    """Yield a database on the shared cluster with the shop schema; tests restore its rows."""
    settings = create_database(replicated_cluster, "shop_of_threads")
    asyncio.run(create_shop(replicated_cluster, settings.declared_primary.url))
    return settings_of(settings)


@pytest.fixture
def servers(shop: ReplicationSettings) -> collections.abc.Iterator[Servers]:
    with serving(shop) as servers:
        yield servers


@pytest.fixture
def disposable_shop(disposable_cluster: LocalCluster) -> LocalCluster:
    """Yield a cluster with the shop schema, for tests that break servers."""
    asyncio.run(create_shop(disposable_cluster))
    return disposable_cluster

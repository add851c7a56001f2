import asyncio
import collections.abc

import pytest

from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import create_shop


@pytest.fixture(scope="package")
def shop_cluster() -> collections.abc.Iterator[LocalCluster]:
    """Yield a cluster with the shop schema; tests restore its rows and servers."""
    with LocalCluster() as cluster:
        asyncio.run(create_shop(cluster))
        yield cluster


@pytest.fixture
def disposable_shop(disposable_cluster: LocalCluster) -> LocalCluster:
    """Yield a cluster with the shop schema, for tests that break servers."""
    asyncio.run(create_shop(disposable_cluster))
    return disposable_cluster

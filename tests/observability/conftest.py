import asyncio
import collections.abc

import pytest

from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import create_shop


@pytest.fixture(scope="package")
def shop_cluster() -> collections.abc.Iterator[LocalCluster]:
    """Give a cluster with the shop in it; tests leave its rows and servers as they found them."""
    with LocalCluster() as cluster:
        asyncio.run(create_shop(cluster))
        yield cluster


@pytest.fixture
def disposable_shop(disposable_cluster: LocalCluster) -> LocalCluster:
    """Give a cluster with the shop in it, to break."""
    asyncio.run(create_shop(disposable_cluster))
    return disposable_cluster

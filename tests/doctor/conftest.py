import collections.abc

import pytest

from modern_di_replicas.testing import LocalCluster


GOOD = {"hot_standby_feedback": "on", "max_standby_streaming_delay": "5s", "listen_addresses": "127.0.0.1,127.0.0.2"}
"""Settings of a well configured cluster beyond PostgreSQL's defaults; the second address simulates another machine."""


@pytest.fixture(scope="package")
def good_cluster() -> collections.abc.Iterator[LocalCluster]:
    """Yield a cluster without faults; tests that inject one remove it."""
    with LocalCluster(settings=GOOD) as cluster:
        yield cluster

"""One server of the topology."""

import typing

from modern_di_replicas import Replica
from modern_di_replicas.cluster.server import Server
from tests.unconnected import URL, engines


def server(**options: typing.Any) -> Server:
    _, replica = engines(Replica(URL.format("db-2"), "db-2", **options), replica_pool_size=2, replica_max_overflow=1)
    return next(one for one in replica.topology.servers if one.name == "db-2")


def test_the_monitor_asks_where_the_declaration_says() -> None:
    """For example past a pooler; the pool connects to the URL all the same."""
    assert server().probed_host == "db-2.invalid"
    behind = server(probe_url=URL.format("db-2-direct"))
    assert behind.probed_host == "db-2-direct.invalid"
    assert behind.url == URL.format("db-2")
    assert server(probe_url=URL.format("").replace(".invalid", "")).probed_host == ""


def test_it_has_room_until_its_pool_is_full() -> None:
    """Pool size plus overflow; the pool keeps the count."""
    one = server()
    assert (one.capacity, one.in_use, one.has_room) == (3, 0, True)
    permits = one.pool.permits
    assert permits.acquire(0)
    assert permits.acquire(0)
    assert (one.in_use, one.has_room) == (2, True)
    assert permits.acquire(0)
    assert (one.in_use, one.has_room) == (3, False)

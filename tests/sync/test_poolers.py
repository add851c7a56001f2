"""Synchronous applications behind pgbouncer in transaction mode."""

import asyncio
import concurrent.futures
import contextlib

from sqlalchemy import text

from modern_di_replicas.sync import Monitor
from modern_di_replicas.testing import LocalCluster
from tests.pgbouncer import needs_pgbouncer, pooler
from tests.session.models import Item
from tests.sync.conftest import serving, synchronous


@needs_pgbouncer
async def test_many_threads_share_three_connections(disposable_shop: LocalCluster) -> None:
    """Every read is served by a replica, every write by the primary, and none fails."""
    async with contextlib.AsyncExitStack() as stack:
        urls = [synchronous(await stack.enter_async_context(pooler(server))) for server in disposable_shop.servers]
        await asyncio.to_thread(read_and_write, disposable_shop, urls)


def read_and_write(cluster: LocalCluster, urls: list[str]) -> None:
    with serving(cluster, primary=urls[0], replicas=urls[1:], pooled=True) as servers, Monitor(servers.replica):

        def read(number: int) -> bool:
            with servers.session() as session:
                assert session.get_one(Item, number % 200 + 1).amount == (number % 200 + 1) * 10
                return session.scalar(text("SELECT pg_is_in_recovery()")) is True

        def write(number: int) -> bool:
            with servers.primary.begin() as connection:
                connection.execute(text("UPDATE account SET balance = :n"), {"n": number})
                return connection.scalar(text("SELECT pg_is_in_recovery()")) is False

        with concurrent.futures.ThreadPoolExecutor(12) as executor:
            reads = [executor.submit(read, number) for number in range(200)]
            writes = [executor.submit(write, number) for number in range(50)]
            assert all(one.result() for one in reads)
            assert all(one.result() for one in writes)

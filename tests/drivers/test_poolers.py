"""A real pgbouncer in transaction mode in front of every server, with three connections for all clients."""

import asyncio
import collections
import collections.abc
import contextlib
import logging
import typing

import pytest
from sqlalchemy import make_url, select, text

from modern_di_replicas import Monitor, Primary, Replica, RoutedSession
from modern_di_replicas.consistency.client import Client, request_of
from modern_di_replicas.testing import LocalCluster
from tests.pgbouncer import needs_pgbouncer, pooler
from tests.session.conftest import Servers, create_shop, serving
from tests.session.models import Item
from tests.waiting import until


pytestmark = needs_pgbouncer

DRIVERS = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])


def on(driver: str, url: str) -> str:
    return make_url(url).set(drivername=f"postgresql+{driver}").render_as_string(hide_password=False)


@pytest.fixture
def disposable_shop(disposable_cluster: LocalCluster) -> LocalCluster:
    asyncio.run(create_shop(disposable_cluster))
    return disposable_cluster


@contextlib.asynccontextmanager
async def pooled(cluster: LocalCluster, driver: str, **settings: typing.Any) -> collections.abc.AsyncIterator[Servers]:
    async with contextlib.AsyncExitStack() as stack:
        urls = [on(driver, await stack.enter_async_context(pooler(server))) for server in cluster.servers]
        options = {"primary": urls[0], "replicas": urls[1:], "pooled": True, "probe_interval": 0.1, **settings}
        servers = await stack.enter_async_context(serving(cluster, **options))
        await stack.enter_async_context(Monitor(servers.replica))
        yield servers


@DRIVERS
async def test_many_readers_and_writers_share_three_connections(
    disposable_shop: LocalCluster, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 200 reading units all are served by a replica, of 50 writing units none fails, and each sees its writes."""
    caplog.set_level(logging.INFO, "modern_di_replicas")
    where: collections.Counter[str] = collections.Counter()
    started = asyncio.Semaphore(40)  # as many concurrent requests as the pools can serve

    async def read(servers: Servers, number: int) -> None:
        async with started, servers.session() as session:
            item = await session.get_one(Item, 1 + number % 100)
            assert await session.scalar(select(Item.amount).where(Item.id == item.id)) == item.amount
            where["primary" if session.decision.server == "primary" else "replica"] += 1

    async def write(servers: Servers, number: int) -> None:
        with request_of(Client(is_request=True)):
            async with started:
                async with RoutedSession(servers.primary) as session:
                    (await session.get_one(Item, 101 + number)).amount = number
                    await session.commit()
                async with servers.session() as session:
                    assert (await session.get_one(Item, 101 + number)).amount == number

    async with pooled(disposable_shop, driver, replica_pool_timeout=30.0) as servers:
        reads = [read(servers, number) for number in range(200)]
        writes = [write(servers, number) for number in range(50)]
        await asyncio.gather(*reads, *writes)
        assert servers.replica.topology.own_write is not None

    assert where == {"replica": 200}
    said = [record for record in caplog.records if "READ COMMITTED" in record.getMessage()]
    assert bool(said) is (driver == "asyncpg")


@DRIVERS
async def test_a_setting_of_one_transaction_stays_in_it(disposable_shop: LocalCluster, driver: str) -> None:
    """`SET LOCAL` and `schema_translate_map` need no session on the server."""
    async with pooled(disposable_shop, driver, read_isolation="READ COMMITTED") as servers:
        async with servers.session() as session:
            await session.execute(text("SET LOCAL search_path = tenant"))
            assert await session.scalar(text("SELECT amount FROM item WHERE id = 1")) == 77
            assert session.decision.server != "primary"
        async with servers.session() as session:
            assert await session.scalar(text("SELECT amount FROM item WHERE id = 1")) == 10
            options = {"schema_translate_map": {None: "tenant"}}
            found = await session.execute(select(Item.amount).where(Item.id == 1), execution_options=options)
            assert found.scalar_one() == 77


@DRIVERS
async def test_row_level_security_holds_behind_a_pooler(disposable_shop: LocalCluster, driver: str) -> None:
    """INVARIANT: the setting that a policy reads ends with its transaction and does not leak to other clients."""
    disposable_shop.primary.execute(
        """
        CREATE TABLE note (tenant text, words text);
        ALTER TABLE note ENABLE ROW LEVEL SECURITY;
        ALTER TABLE note FORCE ROW LEVEL SECURITY;
        CREATE POLICY tenant ON note USING (tenant = current_setting('app.tenant', true));
        CREATE ROLE app NOLOGIN;
        GRANT ALL ON note TO app;
        GRANT USAGE ON SCHEMA public TO app;
        INSERT INTO note VALUES ('a', 'of a'), ('b', 'of b');
        """
    )
    disposable_shop.catch_up()
    places = set()

    async def notes(session: RoutedSession, tenant: str | None) -> list[str]:
        await session.execute(text("SET LOCAL ROLE app"))
        if tenant is not None:
            await session.execute(text("SELECT set_config('app.tenant', :tenant, true)"), {"tenant": tenant})
        places.add(session.decision.server)
        return list(await session.scalars(text("SELECT words FROM note")))

    async def check(servers: Servers, tenant: str | None) -> None:
        expected = [] if tenant is None else [f"of {tenant}"]
        async with servers.session() as session:
            assert await notes(session, tenant) == expected
        async with RoutedSession(servers.primary) as session:
            assert await notes(session, tenant) == expected

    async with pooled(disposable_shop, driver, read_isolation="READ COMMITTED") as servers:
        for _ in range(5):
            await asyncio.gather(*(check(servers, tenant) for tenant in ("a", "b", None)))
        assert {server.label for server in servers.settings.servers} & places


@DRIVERS
async def test_writes_follow_a_promotion_behind_a_pooler(disposable_shop: LocalCluster, driver: str) -> None:
    """INVARIANT: pgbouncer still reports `in_hot_standby = on`; the server is queried, and accepts the writes."""
    primary, first, _ = disposable_shop.servers
    async with pooled(disposable_shop, driver) as servers:
        name = servers.settings.servers[0].label
        async with servers.replica.engines[name].connect() as connection:
            assert await connection.scalar(text("SELECT pg_is_in_recovery()"))
        await asyncio.to_thread(primary.stop)
        await asyncio.to_thread(first.promote)
        await until(lambda: servers.replica.topology.leader == name)
        async with RoutedSession(servers.primary) as session:
            session.add(Item(id=903, shop_id=1, amount=1))
            await session.commit()


@DRIVERS
async def test_a_replica_that_freezes_behind_its_pooler_costs_no_read(
    disposable_shop: LocalCluster, driver: str
) -> None:
    """The pooler still accepts connections to it; waiting statements are run again on another server."""
    victim = disposable_shop.replicas[0]
    async with pooled(disposable_shop, driver) as servers:
        victim.freeze()
        for _ in range(20):
            async with servers.session() as session:
                assert await session.scalar(select(Item.amount).where(Item.id == 1)) == 10
        victim.thaw()


async def test_the_monitor_may_ask_past_the_pooler(disposable_shop: LocalCluster) -> None:
    """With `probe_url` the pooler's few connections are left to the application; the database name may differ."""
    primary, first, _ = disposable_shop.servers
    async with pooler(primary, database="of_pooler") as to_primary, pooler(first, database="of_pooler") as to_first:
        settings: dict[str, typing.Any] = {
            "primary": Primary(on("asyncpg", to_primary), probe_url=on("asyncpg", primary.url)),
            "replicas": [Replica(on("asyncpg", to_first), probe_url=on("asyncpg", first.url))],
            "pooled": True,
        }
        async with serving(disposable_shop, **settings) as servers, Monitor(servers.replica):
            asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'app-monitor' AND state = 'idle'"
            assert int(first.execute(asked)) == 1
            async with servers.session() as session:
                assert await session.scalar(select(Item.amount).where(Item.id == 1)) == 10
                assert session.decision.server == servers.settings.servers[0].label


async def test_a_pooler_that_is_not_declared_is_noticed_once(
    disposable_shop: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning names the setting; a statement on the wrong connection is run again on the primary."""
    first = disposable_shop.replicas[0]

    async def read(servers: Servers, number: int) -> None:
        async with servers.session() as session:
            found = await session.scalar(select(Item.amount, text("pg_sleep(0.01)")).where(Item.id == number))
            assert found == number * 10

    async with pooler(first) as url:
        options = {"primary": on("asyncpg", disposable_shop.primary.url), "replicas": [on("asyncpg", url)]}
        async with serving(disposable_shop, **options) as servers:
            for _ in range(5):
                await asyncio.gather(*(read(servers, number) for number in range(1, 21)))
    warnings = [record.getMessage() for record in caplog.records if "pooled=True" in record.getMessage()]
    assert len(warnings) == 1
    assert servers.settings.servers[0].label in warnings[0]

"""Reads from a replica that freezes, crashes, stops or cancels them: users see no error."""

import asyncio
import collections
import collections.abc
import contextlib
import logging
import typing

import pytest
import sqlalchemy.exc
from sqlalchemy import event, func, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from modern_di_replicas import RoutedSession, WriteOnReplicaError
from modern_di_replicas.cluster.engines.one_replica import OneReplicaEngine
from modern_di_replicas.testing import LocalCluster, LocalServer
from tests.driver import UNREACHABLE, only_on
from tests.pgbouncer import AUTOCOMMIT, not_behind_a_pooler
from tests.session.conftest import Servers, serving
from tests.session.models import Account, Item
from tests.waiting import until


READS = 160
CLIENTS = 20
# Long enough for the fault to happen during it.
SLOW_SUM = select(func.sum(Item.amount), func.pg_sleep(0.02))
SUM = sum(n * 10 for n in range(1, 201))


async def read(servers: Servers) -> tuple[int, str]:
    async with servers.session() as session:
        total, _ = (await session.execute(SLOW_SUM)).one()
        return total, session.decision.server


@contextlib.asynccontextmanager
async def reads_in_flight(servers: Servers) -> collections.abc.AsyncIterator[collections.Counter[tuple[int, str]]]:
    """Read with twenty clients, until the block has ended and at least 160 reads are complete; it begins after 40."""
    results: collections.Counter[tuple[int, str]] = collections.Counter()
    warm, ended = asyncio.Event(), asyncio.Event()

    async def client() -> None:
        while not ended.is_set() or results.total() < READS:
            results[await read(servers)] += 1
            if results.total() >= READS // 4:
                warm.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(client())
        await warm.wait()
        yield results
        ended.set()


def engine_of(servers: Servers, server: LocalServer) -> OneReplicaEngine:
    topology = servers.replica.topology
    engine = next(member.engine for member in topology.servers if member.name == f"127.0.0.1:{server.port}")
    assert isinstance(engine, OneReplicaEngine)
    return engine


async def freeze_and_declare_dead(servers: Servers, server: LocalServer) -> None:
    await asyncio.to_thread(server.freeze)
    engine_of(servers, server).health.declare_down()


async def crash(servers: Servers, server: LocalServer) -> None:  # noqa: ARG001  # one signature for all faults
    await asyncio.to_thread(server.stop, "immediate")


async def stop(servers: Servers, server: LocalServer) -> None:  # noqa: ARG001
    await asyncio.to_thread(server.stop, "fast")


async def cancel_for_recovery_conflict(servers: Servers, server: LocalServer) -> None:
    """Lock the table on the primary briefly: replaying that lock cancels reads of the table."""
    conflicts = "SELECT confl_lock FROM pg_stat_database_conflicts WHERE datname = current_database()"
    for _ in range(100):
        await asyncio.to_thread(servers.cluster.primary.execute, "BEGIN; LOCK TABLE item; COMMIT")
        if int(await asyncio.to_thread(server.execute, conflicts)) >= 20:
            return
    pytest.fail("the replica never cancelled a statement")


@pytest.mark.parametrize("fault", [freeze_and_declare_dead, crash, stop, cancel_for_recovery_conflict])
async def test_no_read_fails_whatever_happens_to_a_replica(
    disposable_shop: LocalCluster,
    fault: collections.abc.Callable[[Servers, LocalServer], collections.abc.Awaitable[None]],
) -> None:
    """INVARIANT: hundreds of concurrent reads, no error, the right rows, no connection left checked out."""
    victim = disposable_shop.replicas[0]
    victim.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
    victim.execute("SELECT pg_reload_conf()")

    async with serving(disposable_shop, replica_pool_size=20, primary_pool_size=40) as servers:
        async with reads_in_flight(servers) as results:
            await fault(servers, victim)

        assert {total for total, _ in results} == {SUM}
        assert results.total() >= READS
        assert results[SUM, "primary"] > 0, "the fault did not hit any read"
        victim.thaw()


async def test_a_statement_on_a_frozen_replica_is_run_again_as_soon_as_it_is_declared_dead(
    disposable_shop: LocalCluster,
) -> None:
    """The blocked statement fails by the termination of its connection, not by a timeout."""
    async with serving(disposable_shop) as servers:
        async with servers.session() as session:
            assert await session.scalar(select(Item.amount).where(Item.id == 1)) == 10
            replica = next(
                server for server in disposable_shop.replicas if session.decision.server.endswith(str(server.port))
            )
            replica.freeze()
            stuck = asyncio.create_task(session.scalar(select(Item.amount).where(Item.id == 2)))
            done, _ = await asyncio.wait({stuck}, timeout=0.3)
            assert not done
            engine_of(servers, replica).health.declare_down()
            async with asyncio.timeout(10):
                assert await stuck == 20
            assert session.decision.server == "primary"
            assert "failed" in session.decision.reason
        replica.thaw()


@not_behind_a_pooler("it accepts clients while its server is down, and each connection takes until its timeout")
async def test_a_replica_that_refuses_connections_fails_no_read(
    disposable_shop: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """With an empty pool: the read is run again; the operator gets one warning per replica, not per read."""
    for replica in disposable_shop.replicas:
        replica.stop()

    async with serving(disposable_shop) as servers:
        for _ in range(4):
            assert await read(servers) == (SUM, "primary")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len([message for message in warnings if "failed a statement" in message]) == 2


async def test_a_replica_out_of_connections_fails_no_read(disposable_shop: LocalCluster) -> None:
    """SQLSTATE 53300, too_many_connections, occurs while connecting, where the driver's error is not wrapped."""
    victim = disposable_shop.replicas[0]
    disposable_shop.replicas[1].stop()
    taken = create_async_engine(victim.url, pool_size=100)
    connections = []
    with contextlib.suppress(Exception):
        while True:
            connections.append(await taken.connect().start())

    async with serving(disposable_shop) as servers:
        assert await read(servers) == (SUM, "primary")

    for connection in connections:
        await connection.close()
    await taken.dispose()


async def test_a_full_pool_escalates_without_resting_the_replica(shop_cluster: LocalCluster) -> None:
    """A busy replica is not a failed one: its other connections and the next reader are not affected."""
    settings = {"replica_pool_size": 1, "replica_max_overflow": 0, "replica_pool_timeout": 0.01}
    async with serving(shop_cluster, **settings) as servers:
        async with servers.session() as one, servers.session() as two, servers.session() as third:
            places = []
            for session in (one, two, third):
                await session.scalar(select(Item.id).limit(1))
                places.append(session.decision.server)
            assert places.count("primary") == 1
        async with servers.session() as after:
            await after.scalar(select(Item.id).limit(1))
            assert after.decision.server != "primary"


@not_behind_a_pooler("the error is the pooler's")
async def test_a_primary_that_fails_too_raises_its_own_error(disposable_shop: LocalCluster) -> None:
    """No other server is left to try."""
    for server in disposable_shop.servers:
        server.stop("immediate")

    async with serving(disposable_shop) as servers, servers.session() as session:
        with pytest.raises(UNREACHABLE, match=str(disposable_shop.primary.port)):
            await session.scalar(select(Item.id).limit(1))


async def test_a_restarted_replica_serves_again(disposable_shop: LocalCluster) -> None:
    """Its pooled connections are closed; each costs one statement that is run again."""
    async with serving(disposable_shop) as servers:
        for _ in range(4):
            assert (await read(servers))[1] != "primary"
        for replica in disposable_shop.replicas:
            replica.restart()

        async def serves_again() -> bool:
            return (await read(servers)) != (SUM, "primary")

        await until(serves_again)


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
async def test_in_a_transaction_only_the_first_statement_is_run_again(
    disposable_shop: LocalCluster, isolation: str
) -> None:
    """INVARIANT: earlier statements, such as a SET LOCAL, had no effect on the primary: continuing would be wrong."""
    async with serving(disposable_shop, read_isolation=isolation) as servers:
        async with servers.session() as session:
            await session.execute(text("SET LOCAL app.tenant = 'a'"))
            for replica in disposable_shop.replicas:
                replica.stop("immediate")
            with pytest.raises(sqlalchemy.exc.DBAPIError):
                await session.execute(text("SELECT current_setting('app.tenant')"))
            await session.rollback()
        async with servers.session() as session:
            assert await session.scalar(select(Item.amount).where(Item.id == 1)) == 10


async def test_a_write_that_only_the_server_sees_is_refused_in_the_middle_of_a_transaction(
    shop_cluster: LocalCluster,
) -> None:
    """It cannot be run again inside the transaction, so the error is raised in either mode."""
    async with serving(shop_cluster, read_isolation="READ COMMITTED") as servers, servers.session() as session:
        await session.scalar(select(Item.id).limit(1))
        with pytest.raises(WriteOnReplicaError) as caught:
            await session.scalar(select(func.visit()))
        assert caught.value.endpoint == "shop.show"
        await session.rollback()


async def test_a_stream_that_cannot_be_opened_is_opened_on_the_primary(disposable_shop: LocalCluster) -> None:
    """The first rows are fetched with the statement, so an error occurs while it can still be run again."""
    async with serving(disposable_shop) as servers, servers.session() as session:
        for replica in disposable_shop.replicas:
            replica.stop("immediate")
        rows = await session.stream_scalars(select(Item.id))
        assert len(await rows.all()) == 200
        assert session.decision.server == "primary"


@pytest.mark.parametrize("isolation", ["AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ"])
async def test_a_failed_statement_of_a_stream_ejects_no_replica(shop_cluster: LocalCluster, isolation: str) -> None:
    """INVARIANT: SQLAlchemy raises the driver's own error, as it does for an unreachable server."""
    wrong, writing = text("SELECT 1 / (i - 1) FROM generate_series(1, 3) i"), select(func.visit())
    async with serving(shop_cluster, read_isolation=isolation, on_write="raise") as servers:
        for _ in range(3):
            async with servers.session() as session:
                with pytest.raises((sqlalchemy.exc.DBAPIError, *servers.settings.driver.errors)) as caught:
                    await session.stream(wrong)
                assert servers.settings.driver.sqlstate(caught.value) == "22012"
            async with servers.session() as session:
                with pytest.raises(WriteOnReplicaError):
                    await session.stream_scalars(writing)
                assert session.decision.server != "primary"
        assert not any(member.health.is_down for member in servers.replica.topology.servers)


async def test_a_stream_that_writes_is_opened_on_the_primary(shop_cluster: LocalCluster) -> None:
    """Like any other write that only the server can detect."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        rows = await session.stream_scalars(select(func.visit()))
        assert await rows.all() == [7]
        assert session.decision.server == "primary"
        await session.rollback()


async def test_a_time_limit_on_a_stream_is_not_moved_to_the_primary(shop_cluster: LocalCluster) -> None:
    """A statement that is too slow for a replica would only burden the primary."""
    async with serving(shop_cluster, read_isolation="READ COMMITTED") as servers, servers.session() as session:
        await session.execute(text("SET LOCAL statement_timeout = 10"))
        with pytest.raises((sqlalchemy.exc.DBAPIError, *servers.settings.driver.errors)) as caught:
            await session.stream(select(func.pg_sleep(5)))
        assert servers.settings.driver.sqlstate(caught.value) == "57014"
        assert session.decision.server != "primary"
        await session.rollback()


async def test_a_stream_that_breaks_after_its_first_rows_raises(disposable_shop: LocalCluster) -> None:
    """Its reader has seen rows: a restart would show them twice."""
    numbers = select(func.generate_series(1, 1_000_000))
    async with serving(disposable_shop) as servers, servers.session() as session:
        rows = await session.stream_scalars(numbers)
        assert await anext(rows) == 1
        for replica in disposable_shop.replicas:
            replica.stop("immediate")
        # SQLAlchemy does not wrap the driver's error while it fetches from a server-side cursor.
        with pytest.raises((sqlalchemy.exc.DBAPIError, *servers.settings.driver.errors)):
            await rows.all()


async def test_a_session_can_commit_after_it_lost_its_replica(disposable_shop: LocalCluster) -> None:
    """INVARIANT: the session must not commit the replica's connection; its loss must not fail the commit."""
    async with serving(disposable_shop) as servers, servers.session() as session:
        assert (await session.get_one(Item, 1)).amount == 10
        for replica in disposable_shop.replicas:
            replica.stop("immediate")
        session.add(Item(id=901, shop_id=1, amount=1))
        await session.commit()
        assert (await session.get_one(Item, 901)).amount == 1
        await session.rollback()


async def test_a_cancelled_read_leaves_nothing_behind(shop_cluster: LocalCluster) -> None:
    """A client that disconnects cancels its statement; the connection is replaced, not leaked."""
    async with serving(shop_cluster, replica_pool_size=1, replica_max_overflow=0) as servers:
        for _ in range(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), servers.session() as session:
                    await session.execute(select(func.pg_sleep(5)))
        assert servers.checked_out() == 0
        assert (await read(servers))[1] != "primary"


async def test_a_missing_table_on_a_replica_is_an_error_only_if_the_primary_lacks_it_too(
    disposable_shop: LocalCluster,
) -> None:
    """A migration reaches a replica late; the primary has the table already."""
    for replica in disposable_shop.replicas:
        replica.pause_replay()
    disposable_shop.primary.execute("CREATE TABLE late AS SELECT 5 AS n")

    async with serving(disposable_shop) as servers, servers.session() as session:
        assert await session.scalar(text("SELECT n FROM late")) == 5


async def test_a_time_limit_is_not_moved_to_the_primary(shop_cluster: LocalCluster) -> None:
    """A statement that is too slow for a replica would only burden the primary."""
    async with serving(shop_cluster, read_isolation="READ COMMITTED") as servers, servers.session() as session:
        await session.execute(text("SET LOCAL statement_timeout = 10"))
        with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
            await session.execute(select(func.pg_sleep(5)))
        assert getattr(caught.value.orig, "sqlstate", None) == "57014"
        assert session.decision.server != "primary"
        await session.rollback()


async def test_an_error_of_the_program_itself_stays_where_it_is(shop_cluster: LocalCluster) -> None:
    """The statement reached no server, so no other server would succeed."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        with pytest.raises(sqlalchemy.exc.StatementError):
            await session.execute(text("SELECT :missing"))
        assert session.decision.server != "primary"


LOCKS_OF_READS = """
    SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE application_name = 'app-replica' AND relation = 'item'::regclass
"""


@only_on("asyncpg", "psycopg checks no ranges before it sends")
async def test_a_statement_that_the_driver_gives_up_leaves_no_lock_behind(shop_cluster: LocalCluster) -> None:
    """INVARIANT: a lock on a pooled connection would block the replay of a schema change until its next use."""
    async with serving(shop_cluster, replicas=[shop_cluster.replicas[0].url]) as servers:
        with pytest.raises(sqlalchemy.exc.DBAPIError, match="out of int32 range"):
            async with servers.session() as session:
                await session.get(Item, 10**12)
        assert servers.checked_out() == 0
        assert shop_cluster.replicas[0].execute(LOCKS_OF_READS) == "0"


async def test_rows_that_are_loaded_in_parts_stay_on_the_replica(shop_cluster: LocalCluster) -> None:
    """`yield_per` implicitly uses a server-side cursor."""
    parts = select(Item.amount).order_by(Item.id).execution_options(yield_per=7)
    async with serving(shop_cluster) as servers, servers.session() as session:
        amounts = await session.run_sync(lambda sync: sync.scalars(parts).all())
        assert amounts == [number * 10 for number in range(1, 201)]
        assert session.decision.server != "primary"


async def test_a_connection_that_has_ended_is_replaced_at_its_checkout(disposable_shop: LocalCluster) -> None:
    """After a restart of the primary there is no error: a closed connection is detected without a query."""
    async with serving(disposable_shop) as servers:
        async with RoutedSession(servers.primary) as session:
            assert await session.get(Account, 1) is not None
        await asyncio.to_thread(disposable_shop.primary.restart)
        async with RoutedSession(servers.primary) as session:
            assert await session.get(Account, 1) is not None


@not_behind_a_pooler("the connection to the server is the pooler's")
@only_on("asyncpg", "psycopg has no `command_timeout`")
async def test_a_statement_the_driver_gave_up_on_leaves_its_connection_behind(disposable_shop: LocalCluster) -> None:
    """A timeout of the driver on a frozen server is the application's error; the connection is not reused."""

    def limit(dialect: object, record: object, cargs: object, cparams: dict[str, typing.Any]) -> None:  # noqa: ARG001  # the event's signature
        cparams["command_timeout"] = 0.2

    backend = text("SELECT pg_backend_pid()")
    async with serving(disposable_shop, replica_pool_size=1) as servers:
        for replica in disposable_shop.replicas:
            event.listen(engine_of(servers, replica).sync_engine, "do_connect", limit)
        async with servers.session() as session:
            former = await session.scalar(backend)
            replica = next(server for server in disposable_shop.replicas if str(server.port) in session.decision.server)
            replica.freeze()
            with pytest.raises(TimeoutError):
                await session.scalar(select(Item.amount).where(Item.id == 2))
        engine = engine_of(servers, replica)
        assert not engine.health.is_down
        replica.thaw()
        async with engine.connect() as connection:
            assert await connection.scalar(backend) != former


@not_behind_a_pooler(AUTOCOMMIT, driver="asyncpg")
async def test_a_stream_that_gets_no_separate_connection_goes_to_the_primary(shop_cluster: LocalCluster) -> None:
    """In autocommit a server-side cursor needs a second connection; the first one stays usable."""
    settings = {"replica_pool_size": 1, "replica_max_overflow": 0, "replica_pool_timeout": 0.01}
    async with serving(shop_cluster, **settings) as servers, servers.session() as session:
        assert await session.scalar(select(Item.amount).where(Item.id == 1)) == 10
        rows = await session.stream_scalars(select(Item.id))
        assert len(await rows.all()) == 200
        assert session.decision.server == "primary"


async def test_a_replica_that_went_down_after_the_choice_is_not_connected_to(shop_cluster: LocalCluster) -> None:
    """The server is chosen when the session is resolved; the first statement may come much later."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        for replica in shop_cluster.replicas:
            engine_of(servers, replica).health.declare_down()
        assert await session.scalar(select(Item.amount).where(Item.id == 1)) == 10
        assert "went down" in session.decision.reason


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_a_transaction_whose_end_is_cancelled_returns_its_connection(
    disposable_shop: LocalCluster, end: str
) -> None:
    """INVARIANT: however a unit of work ends, each pool gets its connections back; `serving` verifies it."""
    async with serving(disposable_shop, primary_pool_size=1) as servers:
        holder = await servers.primary.connect().start()
        tasks: list[asyncio.Task[None]] = []

        def cancel(*_: object) -> None:
            if tasks:
                tasks.pop().cancel()

        # The pool is full, so the returned connection is closed; the task is cancelled during that.
        event.listen(servers.primary.sync_engine, "close", cancel, insert=True)

        async def work() -> None:
            async with servers.session() as session:
                assert await session.get(Account, 1) is not None
                await session.execute(text("CREATE TEMPORARY TABLE t (n int) ON COMMIT DROP"))
                await holder.close()
                tasks.append(working)
                await getattr(session, end)()

        working = asyncio.create_task(work())
        with contextlib.suppress(asyncio.CancelledError):
            await working

"""The monitor: the state at the start, changes it follows, and its cleanup."""

import asyncio
import datetime as dt
import logging
import typing

import pytest
import sqlalchemy.exc
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from modern_di_replicas import (
    Monitor,
    PrimaryEngine,
    Replica,
    ReplicaEngine,
    ReplicationSettings,
    RoutedSession,
)
from modern_di_replicas.cluster.engines.create import create_replica_engine
from modern_di_replicas.routing.snapshot import Role
from modern_di_replicas.testing import LocalCluster
from tests.cluster.monitoring.states import name, snapshot, state, watched, write
from tests.pgbouncer import not_behind_a_pooler
from tests.session.conftest import Servers, serving
from tests.waiting import until


async def test_the_first_snapshot_is_there_at_the_start(disposable_cluster: LocalCluster) -> None:
    """The first request is routed by known states."""
    async with watched(disposable_cluster) as servers:
        assert snapshot(servers).primary == name(disposable_cluster.primary)
        assert state(servers, disposable_cluster.primary).role is Role.PRIMARY
        for replica in disposable_cluster.replicas:
            assert state(servers, replica).role is Role.STANDBY
            assert state(servers, replica).lag_seconds is not None


async def test_writes_follow_a_switchover_and_reads_go_to_the_standbys(
    disposable_cluster: LocalCluster,
) -> None:
    """The old primary is stopped, a replica is promoted, the old primary rejoins: without a restart."""
    primary, first, second = disposable_cluster.servers
    async with watched(disposable_cluster) as servers:
        assert await write(servers) == primary.port
        disposable_cluster.catch_up()
        await asyncio.to_thread(primary.stop)
        await asyncio.to_thread(first.promote)
        await until(lambda: snapshot(servers).primary == name(first))
        assert await write(servers) == first.port

        await asyncio.to_thread(second.stop)
        await asyncio.to_thread(second.follow, first)
        await asyncio.to_thread(primary.follow, first)
        await until(lambda: {state(servers, s).role for s in (primary, second)} == {Role.STANDBY})
        await until(lambda: all(state(servers, s).lag_seconds is not None for s in (primary, second)))
        ports: set[int | None] = set()

        async def both_have_served() -> bool:  # the primary may serve until both replicas are known to be fresh
            async with servers.session() as session:
                ports.add(await session.scalar(text("SELECT inet_server_port()")))
            return {primary.port, second.port} <= ports

        await until(both_have_served)


async def test_a_write_that_was_reported_as_successful_survives_a_failover() -> None:
    """INVARIANT: with synchronous replication, writes committed before the crash are on the new primary."""
    with LocalCluster(replicas=2, synchronous=True) as cluster:
        primary, first, second = cluster.servers
        async with watched(cluster) as servers:
            reported = 0
            crashed = asyncio.Event()

            async def writer() -> None:
                nonlocal reported
                while True:
                    try:
                        port = await write(servers)
                    except (sqlalchemy.exc.DBAPIError, OSError, sqlalchemy.exc.TimeoutError):
                        await asyncio.sleep(0)
                        continue
                    reported += 1
                    if crashed.is_set() and port != primary.port:
                        return

            writers = [asyncio.create_task(writer()) for _ in range(5)]
            await until(lambda: reported >= 50)
            await asyncio.to_thread(primary.stop, "immediate")
            crashed.set()
            lsns = {
                server: int(await asyncio.to_thread(server.execute, "SELECT pg_last_wal_receive_lsn() - '0/0'"))
                for server in (first, second)
            }
            chosen = max(lsns, key=lambda server: lsns[server])
            await asyncio.to_thread(chosen.execute, "ALTER SYSTEM SET synchronous_standby_names = ''")
            await asyncio.to_thread(chosen.execute, "SELECT pg_reload_conf()")
            await asyncio.to_thread(chosen.promote)
            async with asyncio.timeout(15):
                await asyncio.gather(*writers)
            found = int(await asyncio.to_thread(chosen.execute, "SELECT count(*) FROM written"))
            assert found >= reported


async def test_of_two_primaries_the_one_on_the_older_timeline_is_fenced(
    disposable_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """INVARIANT: the old primary does not know of the promotion; no row is written to it, and it is reported."""
    primary, first, _ = disposable_cluster.servers
    async with watched(disposable_cluster) as servers:
        await write(servers)
        disposable_cluster.catch_up()
        await asyncio.to_thread(first.promote)
        await until(lambda: snapshot(servers).primary == name(first))
        before = primary.execute("SELECT count(*) FROM written")
        assert {await write(servers) for _ in range(10)} == {first.port}
        await until(lambda: state(servers, primary).role is Role.FENCED)
        await until(lambda: any(record.levelno == logging.ERROR for record in caplog.records))
        await asyncio.to_thread(primary.restart)
        await until(lambda: state(servers, primary).up)
        assert {await write(servers) for _ in range(10)} == {first.port}
        assert primary.execute("SELECT count(*) FROM written") == before

        # The new primary stops too: still nothing is written to the old one.
        await asyncio.to_thread(first.stop, "immediate")
        await until(lambda: not state(servers, first).up)
        with pytest.raises((sqlalchemy.exc.DBAPIError, OSError)):
            await write(servers)
        assert primary.execute("SELECT count(*) FROM written") == before

    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert name(primary) in errors[0]


async def test_a_fenced_primary_gets_no_write_while_no_other_is_known(disposable_cluster: LocalCluster) -> None:
    """INVARIANT: the new primary is not declared, the former one still runs: an error is better than a lost write."""
    former, unlisted, standby = disposable_cluster.servers
    former.execute("CREATE TABLE written (n serial PRIMARY KEY)")
    disposable_cluster.catch_up()
    settings: dict[str, typing.Any] = {"replicas": [standby.url], "probe_interval": 0.1, "connect_timeout": 0.5}
    async with serving(disposable_cluster, **settings) as servers, Monitor(servers.replica):
        assert await write(servers) == former.port
        disposable_cluster.catch_up()
        await asyncio.to_thread(unlisted.promote)
        await asyncio.to_thread(standby.follow, unlisted)
        await until(lambda: state(servers, former).role is Role.FENCED)
        before = former.execute("SELECT count(*) FROM written")
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError, match="older timeline"):
                await write(servers)
        assert former.execute("SELECT count(*) FROM written") == before
        await asyncio.to_thread(standby.promote)
        await until(lambda: snapshot(servers).primary == name(standby))
        assert await write(servers) == standby.port


async def test_a_standby_that_followed_a_promotion_serves_when_its_new_primary_is_gone(
    disposable_cluster: LocalCluster,
) -> None:
    """INVARIANT: without a receiver it reports the timeline of its control file, which may be the previous one."""
    promoted, standby = disposable_cluster.replicas
    async with watched(disposable_cluster) as servers:
        await asyncio.to_thread(disposable_cluster.primary.stop, "fast")
        await asyncio.to_thread(promoted.promote)
        await asyncio.to_thread(standby.follow, promoted)
        await until(lambda: (state(servers, standby).role, state(servers, standby).timeline) == (Role.STANDBY, 2))
        await asyncio.to_thread(promoted.stop, "immediate")
        await until(lambda: not state(servers, promoted).up)
        assert standby.execute("SELECT timeline_id FROM pg_control_checkpoint()") == "1", "it proves nothing"
        assert standby.execute("SELECT count(*) FROM pg_stat_wal_receiver") == "0", "it proves nothing"
        seen = [state(servers, standby)]

        def has_answered_again() -> bool:
            if state(servers, standby) is not seen[-1]:
                seen.append(state(servers, standby))
            return len(seen) > 3

        await until(has_answered_again)
        assert {(one.role, one.timeline) for one in seen} == {(Role.STANDBY, 2)}
        async with servers.session() as session:
            assert await session.scalar(text("SELECT inet_server_port()")) == standby.port


async def test_checkouts_wait_at_a_fence_until_a_primary_is_known(replicated_cluster: LocalCluster) -> None:
    """They take no place in the pool, whose size is one here; after the timeout, checkouts fail at once."""
    primary = replicated_cluster.primary
    pool_size = {"primary_pool_size": 1, "primary_max_overflow": 0}
    async with serving(replicated_cluster, **pool_size) as servers:
        async with RoutedSession(servers.primary) as session:
            former = await session.connection()
            servers.primary.fence(timeout=60)
            assert former.sync_connection is not None
            with pytest.raises(sqlalchemy.exc.DBAPIError):
                await session.execute(text("SELECT 1"))

        held_up = [asyncio.create_task(port_of_primary(servers)) for _ in range(3)]
        given_up = asyncio.create_task(port_of_primary(servers))
        servers.primary.fence(timeout=0)  # there is one already
        pool: typing.Any = servers.primary.pool
        for _ in range(10):
            await asyncio.sleep(0)
        assert not any(task.done() for task in (*held_up, given_up))
        assert pool.checkedout() == 0
        given_up.cancel()
        servers.primary.follow(primary.url)
        assert await asyncio.gather(*held_up) == [primary.port] * 3
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert pool == servers.primary.pool
        assert (pool.checkedin(), pool.checkedout()) == (1, 0)

        servers.primary.fence(timeout=0)
        with pytest.raises(ConnectionRefusedError, match="older timeline"):
            await port_of_primary(servers)


async def test_an_engine_with_a_foreign_pool_is_fenced_as_well(replicated_cluster: LocalCluster) -> None:
    """It refuses at once: a foreign pool has no fence, so checkouts cannot wait."""
    engine = PrimaryEngine(create_async_engine(replicated_cluster.primary.url, poolclass=NullPool).sync_engine)
    engine.fence(timeout=60)
    with pytest.raises(ConnectionRefusedError, match="older timeline"):
        await engine.connect()
    engine.follow(replicated_cluster.primary.url)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT inet_server_port()")) == replicated_cluster.primary.port


async def test_the_next_monitor_lifts_the_fence_of_the_last_one(replicated_cluster: LocalCluster) -> None:
    """It knows the primary; the last monitor ended before it did."""
    async with serving(replicated_cluster) as servers:
        servers.primary.fence(timeout=0)
        async with Monitor(servers.replica):
            assert await port_of_primary(servers) == replicated_cluster.primary.port


async def port_of_primary(servers: Servers) -> object:
    async with RoutedSession(servers.primary) as session:
        return await session.scalar(text("SELECT inet_server_port()"))


async def test_a_standby_that_follows_a_former_primary_serves_nothing(disposable_cluster: LocalCluster) -> None:
    """INVARIANT: its LSN is ahead of the new primary's, and its rows are those of another history."""
    former, promoted, left = disposable_cluster.servers
    async with watched(disposable_cluster) as servers:
        await asyncio.to_thread(promoted.promote)
        await until(lambda: snapshot(servers).primary == name(promoted))
        await asyncio.to_thread(former.execute, "INSERT INTO written SELECT FROM generate_series(1, 10000)")
        await until(lambda: (state(servers, left).lsn or 0) > (state(servers, promoted).lsn or 0))
        assert state(servers, left).role is Role.LEFT_BEHIND
        for _ in range(4):
            async with servers.session() as session:
                assert await session.scalar(text("SELECT count(*) FROM written")) == 0
                assert session.decision.server == "primary"


async def test_a_connection_to_a_primary_that_became_a_standby_is_replaced(disposable_cluster: LocalCluster) -> None:
    """Behind a proxy that follows the primary, open connections do not move: SQLSTATE 25006 closes them."""
    async with serving(disposable_cluster) as servers:
        async with RoutedSession(servers.primary) as session:
            await session.execute(text("SELECT 1"))
        primary = disposable_cluster.primary
        async with RoutedSession(servers.primary) as session:
            await session.execute(text("SET default_transaction_read_only = on"))
            await session.commit()
        async with RoutedSession(servers.primary) as session:
            with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
                await session.execute(text("CREATE TABLE refused (n int)"))
            assert caught.value.connection_invalidated
        async with RoutedSession(servers.primary) as session:
            await session.execute(text("CREATE TABLE accepted (n int)"))
            await session.commit()
        assert primary.execute("SELECT to_regclass('accepted')") == "accepted"


async def test_a_server_is_unknown_once_its_watch_was_cancelled(
    replicated_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """INVARIANT: a state that is never updated is worse than none; without the primary's position, lag has no limit."""
    before = asyncio.all_tasks()
    async with serving(replicated_cluster, probe_interval=0.05) as servers, Monitor(servers.replica):
        primary, first, second = replicated_cluster.servers
        watches = {
            task.get_coro().cr_frame.f_locals["server"].name: task  # type: ignore[union-attr]  # it is a coroutine
            for task in asyncio.all_tasks() - before
        }
        watches[name(first)].cancel()
        await until(lambda: state(servers, first).role is Role.UNKNOWN)
        assert f"The probe task of {name(first)} has ended" in caplog.text
        for _ in range(4):
            async with servers.session() as session:
                assert await session.scalar(text("SELECT inet_server_port()")) == second.port

        watches[name(primary)].cancel()
        await until(lambda: state(servers, second).role is Role.UNKNOWN)
        async with servers.session() as session:
            assert await session.scalar(text("SELECT inet_server_port()")) == primary.port


async def test_a_server_of_another_cluster_is_not_used(
    replicated_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong address would return rows of another database."""
    with LocalCluster(replicas=1) as other:
        ours, foreign = replicated_cluster.replicas[0], other.replicas[0]
        replicas = [ours.url, foreign.url]
        async with serving(replicated_cluster, replicas=replicas) as servers, Monitor(servers.replica):
            assert state(servers, foreign).role is Role.FOREIGN
            for _ in range(4):
                async with servers.session() as session:
                    assert await session.scalar(text("SELECT inet_server_port()")) == ours.port
        assert name(foreign) in caplog.text


async def test_the_primary_by_another_name_serves_where_no_standby_does(replicated_cluster: LocalCluster) -> None:
    """One database for both roles, as in development: it was declared as a replica."""
    url = replicated_cluster.primary.url
    async with (
        serving(replicated_cluster, replicas=[url]) as servers,
        Monitor(servers.replica),
        servers.session() as session,
    ):
        assert await session.scalar(text("SELECT 1")) == 1
        assert session.decision.server == name(replicated_cluster.primary)


@not_behind_a_pooler("the connection to the server is the pooler's")
async def test_the_monitor_leaves_nothing_behind(replicated_cluster: LocalCluster) -> None:
    """Neither tasks nor connections; afterwards only failures seen by sessions are known."""
    async with serving(replicated_cluster, application_name="leaves-nothing") as servers:
        tasks = len(asyncio.all_tasks())
        async with Monitor(servers.replica):
            assert len(asyncio.all_tasks()) == tasks + 3
        assert len(asyncio.all_tasks()) == tasks
        topology = servers.replica.topology
        assert topology.snapshot is None
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leaves-nothing-monitor'"
    await until(lambda: all(server.execute(query) == "0" for server in replicated_cluster.servers))


async def test_a_primary_engine_of_the_application_is_not_moved(disposable_cluster: LocalCluster) -> None:
    """An application with its own primary engine handles failover itself; reads follow all the same."""
    settings = ReplicationSettings(
        primary=disposable_cluster.primary.url,
        replicas=[server.url for server in disposable_cluster.replicas],
        probe_interval=0.1,
    )
    own = create_async_engine(disposable_cluster.primary.url)
    replica = create_replica_engine(settings, typing.cast(PrimaryEngine, own))
    promoted, standby = disposable_cluster.replicas
    async with Monitor(replica):
        topology = replica.topology
        await asyncio.to_thread(promoted.promote)
        await until(lambda: topology.snapshot is not None and topology.snapshot.primary == name(promoted))
        async with own.connect() as connection:
            port = await connection.scalar(text("SELECT inet_server_port()"))
            assert port == disposable_cluster.primary.port
        await asyncio.to_thread(standby.follow, promoted)
        await until(lambda: replica.choose() is not own)
        chosen = replica.choose()
        assert isinstance(chosen, ReplicaEngine)
        assert chosen.label == name(standby)
    await replica.dispose()
    await own.dispose()


async def test_a_clone_of_a_server_that_is_not_promotable_is_not_followed(disposable_cluster: LocalCluster) -> None:
    """INVARIANT: a detached copy has the same identity and a newer timeline, as a new primary has."""
    primary, first, second = disposable_cluster.servers
    primary.execute("CREATE TABLE written (n serial PRIMARY KEY)")
    disposable_cluster.catch_up()
    replicas = [Replica(first.url, promotable=False), second.url]
    async with serving(disposable_cluster, replicas=replicas, probe_interval=0.1) as servers, Monitor(servers.replica):
        await asyncio.to_thread(first.promote)
        await until(lambda: state(servers, first).role is Role.FENCED)
        assert snapshot(servers).primary == name(primary)
        assert state(servers, second).role is Role.STANDBY
        assert await write(servers) == primary.port

        await asyncio.to_thread(primary.stop)
        await until(lambda: not state(servers, primary).up)
        assert snapshot(servers).primary is None
        await asyncio.to_thread(second.promote)
        await until(lambda: snapshot(servers).primary == name(second))
        assert await write(servers) == second.port


async def test_after_a_deploy_a_replica_that_is_behind_serves_from_the_first_second(
    disposable_cluster: LocalCluster,
) -> None:
    """The monitor's samples are younger than the lag; the replica reports the commit time of its last transaction."""
    disposable_cluster.primary.execute("CREATE TABLE written (n serial PRIMARY KEY)")
    disposable_cluster.catch_up()
    for replica in disposable_cluster.replicas:
        replica.pause_replay()
    disposable_cluster.primary.execute("INSERT INTO written DEFAULT VALUES")
    async with serving(disposable_cluster, max_lag=dt.timedelta(minutes=5)) as servers, Monitor(servers.replica):
        for replica in disposable_cluster.replicas:
            seen = state(servers, replica)
            assert seen.lag_bytes
            assert seen.lag_seconds is not None
        async with servers.session() as session:
            assert await session.scalar(text("SELECT count(*) FROM written")) == 0
    async with (
        serving(disposable_cluster, max_lag=dt.timedelta(milliseconds=1)) as servers,
        Monitor(servers.replica),
        servers.session() as session,
    ):
        assert await session.scalar(text("SELECT count(*) FROM written")) == 1

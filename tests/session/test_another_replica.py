"""The server of a read that fails on its replica, if the primary is excluded or unknown."""

import asyncio
import collections.abc
import contextlib
import datetime as dt
import time
import typing

import pytest
import sqlalchemy.exc
from sqlalchemy import event, select, text

from modern_di_replicas import Bounded, Intent, Monitor, NoReplicaAvailable, RoutedSession
from modern_di_replicas.routing.positions import Freshness
from modern_di_replicas.testing import LocalCluster, LocalServer
from tests.session.conftest import Servers, serving
from tests.session.models import Item
from tests.session.test_faults import engine_of
from tests.waiting import until


READ = select(Item.amount).where(Item.id == 1)
FAILS_ON = """
    CREATE OR REPLACE FUNCTION fails_on(port int, state text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
        IF inet_server_port() = port OR port = 0 THEN RAISE EXCEPTION 'no' USING ERRCODE = state; END IF; RETURN 7;
    END $$
"""


def name(server: LocalServer) -> str:
    return f"127.0.0.1:{server.port}"


@contextlib.asynccontextmanager
async def sparing_the_primary(
    cluster: LocalCluster, **settings: typing.Any
) -> collections.abc.AsyncIterator[tuple[Servers, list[str]]]:
    """Yield servers with `primary_reads=False`, and the statements that the primary was sent all the same."""
    async with serving(cluster, primary_reads=False, **settings) as servers:
        sent: list[str] = []
        event.listen(servers.primary.sync_engine, "before_cursor_execute", lambda *args: sent.append(args[2]))
        yield servers, sent
        assert sent == [], "the primary is not to read"


def pinned_to(servers: Servers, server: LocalServer, **options: typing.Any) -> RoutedSession:
    """Return a session that reads from one replica, independent of the balancer."""
    intent = Intent.read(**options)
    return RoutedSession(engine_of(servers, server), intent=intent, expire_on_commit=False)


Failing = collections.abc.Callable[[Servers, LocalServer], collections.abc.Awaitable[None]]


async def be_known_to_be_down(servers: Servers, server: LocalServer) -> None:
    engine_of(servers, server).health.declare_down()


async def be_ejected(servers: Servers, server: LocalServer) -> None:
    engine_of(servers, server).health.failed()


async def refuse(servers: Servers, server: LocalServer) -> None:  # noqa: ARG001  # one signature for all
    await asyncio.to_thread(server.stop)


async def be_down_when_it_is_connected_to(servers: Servers, server: LocalServer) -> None:
    engine = engine_of(servers, server)
    event.listen(engine.sync_engine, "do_connect", lambda *_: engine.health.declare_down(), insert=True)


FAILINGS = [be_known_to_be_down, be_ejected, refuse, be_down_when_it_is_connected_to]


@pytest.mark.parametrize("failing", FAILINGS)
async def test_another_replica_reads_where_the_primary_is_not_to(
    disposable_shop: LocalCluster, failing: Failing
) -> None:
    """INVARIANT: however the failure of the chosen replica is detected, another one answers, not the primary."""
    victim, other = disposable_shop.replicas
    async with sparing_the_primary(disposable_shop) as (servers, _), pinned_to(servers, victim) as session:
        await failing(servers, victim)
        assert await session.scalar(READ) == 10
        assert session.decision.server == name(other)


@pytest.mark.parametrize("failing", FAILINGS)
async def test_without_another_replica_the_read_raises_and_the_primary_is_spared(
    disposable_shop: LocalCluster, failing: Failing
) -> None:
    """INVARIANT: `primary_reads=False` has no exception; the error says that no replica is available."""
    victim = disposable_shop.replicas[0]
    one: dict[str, typing.Any] = {"replicas": [victim.url]}
    async with sparing_the_primary(disposable_shop, **one) as (servers, _), pinned_to(servers, victim) as session:
        await failing(servers, victim)
        with pytest.raises(NoReplicaAvailable):
            await session.scalar(READ)


async def test_a_read_that_waited_for_a_connection_finds_its_replica_down(shop_cluster: LocalCluster) -> None:
    """Its checkout is refused when a connection is free."""
    victim = shop_cluster.replicas[0]
    one: dict[str, typing.Any] = {"replicas": [victim.url], "replica_pool_size": 1, "replica_max_overflow": 0}
    async with (
        sparing_the_primary(shop_cluster, **one) as (servers, _),
        pinned_to(servers, victim) as holder,
        pinned_to(servers, victim) as waiting,
    ):
        assert await holder.scalar(READ) == 10
        read = asyncio.create_task(waiting.scalar(READ))
        await asyncio.wait({read}, timeout=0.05)
        engine_of(servers, victim).health.declare_down()
        with pytest.raises(NoReplicaAvailable):
            await read


@pytest.mark.parametrize("state", ["53100", "53200", "53400", "58030", "XX001", "40001"])
async def test_a_replica_with_a_transient_error_is_passed_over(shop_cluster: LocalCluster, state: str) -> None:
    """After a full disk, exhausted memory or a limit, the next replica may work; this one is not down."""
    shop_cluster.primary.execute(FAILS_ON)
    shop_cluster.catch_up()
    victim, other = shop_cluster.replicas
    async with sparing_the_primary(shop_cluster) as (servers, _):
        async with pinned_to(servers, victim) as session:
            assert await session.scalar(text(f"SELECT fails_on({victim.port}, '{state}')")) == 7
            assert session.decision.server == name(other)
            assert await session.scalar(READ) == 10
            with pytest.raises(NoReplicaAvailable):
                await session.scalar(text(f"SELECT fails_on(0, '{state}')"))
        assert not any(engine_of(servers, one).health.is_down for one in (victim, other))


async def test_a_statement_that_every_replica_refuses_raises_its_own_error(shop_cluster: LocalCluster) -> None:
    """If one replica lacks a migration, the other is read; if the statement is wrong, its error is raised."""
    shop_cluster.primary.execute(FAILS_ON)
    shop_cluster.catch_up()
    victim, other = shop_cluster.replicas
    async with sparing_the_primary(shop_cluster) as (servers, _):
        async with pinned_to(servers, victim) as session:
            assert await session.scalar(text(f"SELECT fails_on({victim.port}, '42P01')")) == 7
            assert session.decision.server == name(other)
        async with pinned_to(servers, victim) as session:
            with pytest.raises(sqlalchemy.exc.ProgrammingError, match="no_such_table"):
                await session.scalar(text("SELECT 1 FROM no_such_table"))


@pytest.mark.parametrize("state", ["08001", "08006", "57P01", "57P03", "57P05", "25P03", "25P04"])
async def test_an_error_of_a_function_is_not_a_lost_connection_with_any_sqlstate(
    shop_cluster: LocalCluster, state: str
) -> None:
    """The connection works: each replica runs the statement once, and the application gets its error."""
    shop_cluster.primary.execute(FAILS_ON)
    shop_cluster.catch_up()
    victim, other = shop_cluster.replicas
    async with sparing_the_primary(shop_cluster) as (servers, _):
        engines = [engine_of(servers, one) for one in (victim, other)]
        sent: list[object] = []
        for engine in engines:
            event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: sent.append(args[0].engine.url))
        async with pinned_to(servers, victim) as session:
            with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
                await session.scalar(text(f"SELECT fails_on(0, '{state}')"))
            assert getattr(caught.value.orig, "sqlstate", None) == state
            assert not caught.value.connection_invalidated
        assert sent == [engine.sync_engine.url for engine in engines]
        assert not any(engine.health.is_down for engine in engines)


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
async def test_the_first_statement_of_a_transaction_runs_on_another_replica_too(
    disposable_shop: LocalCluster, isolation: str
) -> None:
    """The failed connection ends with the transaction, and the next statement stays on the other replica."""
    victim, other = disposable_shop.replicas
    isolated: dict[str, typing.Any] = {"read_isolation": isolation}
    disposable_shop.primary.execute(FAILS_ON)
    disposable_shop.catch_up()
    async with sparing_the_primary(disposable_shop, **isolated) as (servers, _):
        async with pinned_to(servers, victim) as session:
            assert await session.scalar(text(f"SELECT fails_on({victim.port}, '53200')")) == 7
            assert await session.scalar(READ) == 10
            assert session.decision.server == name(other)
            await session.rollback()
        async with pinned_to(servers, victim) as session:
            assert await session.scalar(READ) == 10


async def test_a_unit_of_work_that_has_read_continues_on_a_replica_that_is_as_fresh(
    disposable_shop: LocalCluster,
) -> None:
    """INVARIANT: time does not run backwards; the other replica is asked for its position, and may catch up."""
    victim, other = disposable_shop.replicas
    options: dict[str, typing.Any] = {"probe_interval": 0.05, "replica_pool_size": 1}
    async with sparing_the_primary(disposable_shop, **options) as (servers, _), Monitor(servers.replica):
        async with pinned_to(servers, victim) as session:
            assert await session.scalar(READ) == 10
            await asyncio.to_thread(victim.stop)
            assert await session.scalar(READ) == 10
            assert session.decision.server == name(other)

        await asyncio.to_thread(victim.start)
        topology = servers.replica.topology
        await until(lambda: len(topology.serving(None)) == 2)
        await asyncio.to_thread(other.pause_replay)
        await asyncio.to_thread(disposable_shop.primary.execute, "UPDATE item SET amount = 11 WHERE id = 1")
        await until(lambda: topology.furthest(name(victim)) > topology.furthest(name(other)))
        async with pinned_to(servers, victim) as session:
            assert await session.scalar(READ) == 11
            await asyncio.to_thread(victim.stop, "immediate")
            with pytest.raises(NoReplicaAvailable):
                await session.scalar(READ)
        await asyncio.to_thread(other.resume_replay)


async def test_without_a_monitor_the_position_of_another_replica_is_unknown(disposable_shop: LocalCluster) -> None:
    """INVARIANT: a unit of work that has read from a replica does not continue on one that may be behind it."""
    victim = disposable_shop.replicas[0]
    async with sparing_the_primary(disposable_shop) as (servers, _), pinned_to(servers, victim) as session:
        assert await session.scalar(READ) == 10
        await asyncio.to_thread(victim.stop)
        with pytest.raises(NoReplicaAvailable):
            await session.scalar(READ)


async def test_the_freshness_of_a_read_holds_on_another_replica_too(disposable_shop: LocalCluster) -> None:
    """INVARIANT: `Bounded` and the client's own writes: a replica that is not known to be fresh enough is not used."""
    victim, other = disposable_shop.replicas
    options: dict[str, typing.Any] = {"probe_interval": 0.05, "max_lag": None}
    async with sparing_the_primary(disposable_shop, **options) as (servers, _), Monitor(servers.replica):
        await asyncio.to_thread(other.pause_replay)
        await asyncio.to_thread(disposable_shop.primary.execute, "UPDATE item SET amount = 12 WHERE id = 1")
        topology, needed = servers.replica.topology, Freshness(max_age=0.2)
        await until(
            lambda: (topology.positions.required(needed, now=time.monotonic()) or 0) > topology.furthest(name(other))
        )
        fresh = Bounded(lag=dt.timedelta(seconds=0.2))
        async with pinned_to(servers, victim, consistency=fresh) as session:
            engine_of(servers, victim).health.failed()
            with pytest.raises(NoReplicaAvailable):
                await session.scalar(READ)
        await asyncio.to_thread(other.resume_replay)


async def test_a_replica_that_is_lost_while_no_primary_is_known_is_replaced_by_another(
    disposable_shop: LocalCluster,
) -> None:
    """INVARIANT: a reader gets a result, not the error of a missing primary."""
    victim, other = disposable_shop.replicas
    async with serving(disposable_shop, probe_interval=0.05) as servers, Monitor(servers.replica):
        async with pinned_to(servers, victim) as session, pinned_to(servers, victim) as second:
            assert await session.scalar(READ) == 10
            await asyncio.to_thread(disposable_shop.primary.stop)
            await until(lambda: servers.replica.topology.has_lost_primary)
            await asyncio.to_thread(victim.stop)
            assert await session.scalar(READ) == 10
            assert session.decision.server == name(other)
            assert await second.scalar(READ) == 10
            assert second.decision.server == name(other)
        await asyncio.to_thread(other.stop)
        async with pinned_to(servers, other) as session:
            with pytest.raises((OSError, sqlalchemy.exc.DBAPIError)):
                await session.scalar(READ)

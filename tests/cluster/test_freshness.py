"""A session that requires a position no replica is known to have waits briefly, then reads on the primary."""

import asyncio
import collections.abc
import dataclasses
import datetime as dt
import time
import typing

import pytest
from sqlalchemy import text

from modern_di_replicas import SESSION, STRONG, Bounded, ConsistencyToken, Intent, Monitor, RoutedSession, Tokens
from modern_di_replicas.cluster import freshness
from modern_di_replicas.cluster.engines.catch_up import CatchUpEngine
from modern_di_replicas.cluster.freshness import FreshRead, catch_up, is_written
from modern_di_replicas.cluster.server import Server
from modern_di_replicas.cluster.topology import Topology
from modern_di_replicas.consistency.client import Client
from modern_di_replicas.consistency.token import identify
from modern_di_replicas.consistency.wal import LAST_LSN
from modern_di_replicas.routing.positions import Freshness, Positions
from modern_di_replicas.routing.snapshot import Observation
from modern_di_replicas.session.replica import ReplicaSession
from modern_di_replicas.testing import LocalCluster
from tests.driver import UNREACHABLE
from tests.pgbouncer import not_behind_a_pooler
from tests.session.conftest import Servers, serving
from tests.waiting import until


FAR = 1 << 40
WHERE = text("SELECT pg_is_in_recovery()")


@pytest.fixture(scope="module")
def cluster() -> collections.abc.Iterator[LocalCluster]:
    with LocalCluster(replicas=2) as cluster:
        yield cluster


async def now(servers: Servers) -> ConsistencyToken:
    """Return a token of the flush position; the insert position may take a while to reach a replica."""
    token = await Tokens(servers.settings, servers.replica.topology).now()
    flushed = servers.cluster.primary.execute("SELECT pg_current_wal_flush_lsn() - '0/0'")
    assert token is not None
    servers.cluster.catch_up()
    return dataclasses.replace(token, lsn=int(flushed))


async def ahead(servers: Servers) -> ConsistencyToken:
    """Return a token that no replica will ever reach."""
    token = await now(servers)
    return dataclasses.replace(token, lsn=token.lsn + FAR)


def reading(servers: Servers, **options: typing.Any) -> RoutedSession:
    return RoutedSession(servers.replica, primary=servers.primary, intent=Intent.read(**options))


async def test_a_sessions_decision_names_its_server_and_the_reason(cluster: LocalCluster) -> None:
    """Its decision names the server, before and after the wait."""
    async with serving(cluster) as servers, Monitor(servers.replica):
        async with reading(servers, after=await ahead(servers)) as session:
            assert session.decision.server in names(servers)
            assert not await session.scalar(WHERE)
            assert session.decision.server == "primary"
            assert session.decision.reason == "declared, escalated: no replica has its client's last write yet"
        async with reading(servers, after=await now(servers)) as session:
            assert await session.scalar(WHERE)
            assert session.decision.server in names(servers)


def names(servers: Servers) -> set[str]:
    return {replica.label for replica in servers.settings.servers}


async def test_without_a_monitor_nothing_is_known_and_the_primary_reads(cluster: LocalCluster) -> None:
    """Where the library does not know, it uses the primary."""
    async with serving(cluster) as servers:
        async with Monitor(servers.replica):
            token = await now(servers)
        for options in ({"after": token}, {"consistency": Bounded(dt.timedelta(hours=1))}, {"consistency": STRONG}):
            async with reading(servers, **options) as session:
                assert not await session.scalar(WHERE)
        async with reading(servers, consistency=SESSION) as session:
            assert await session.scalar(WHERE)


@not_behind_a_pooler("the error is the pooler's")
async def test_a_worker_that_starts_without_a_primary_reads_positions_known_from_the_replicas(
    disposable_cluster: LocalCluster,
) -> None:
    """They agree on the timeline of the token and have replayed it, which needs no primary."""
    async with serving(disposable_cluster) as servers, Monitor(servers.replica):
        token, beyond = await now(servers), await ahead(servers)
    await asyncio.to_thread(disposable_cluster.catch_up)
    await asyncio.to_thread(disposable_cluster.primary.stop, "immediate")
    async with serving(disposable_cluster, connect_timeout=0.5) as servers, Monitor(servers.replica):
        async with reading(servers, after=token) as session:
            assert await session.scalar(WHERE)
        async with reading(servers, after=beyond) as session:
            with pytest.raises(UNREACHABLE):
                await session.scalar(WHERE)
        await asyncio.to_thread(disposable_cluster.primary.start)
        await until(lambda: servers.replica.topology.leader is not None)
        async with reading(servers, after=beyond) as session:
            assert not await session.scalar(WHERE)


async def test_a_read_without_a_monitor_uses_the_primary(cluster: LocalCluster) -> None:
    """The server was chosen while a monitor was running; the statement is sent later."""
    async with serving(cluster) as servers:
        async with Monitor(servers.replica):
            session = reading(servers, after=await ahead(servers))
        async with session:
            assert not await session.scalar(WHERE)


async def test_a_session_that_had_to_wait_ends_as_the_replica_it_read_from_demands(cluster: LocalCluster) -> None:
    """INVARIANT: a surplus connection is closed over the network; only its own pool knows whether it is surplus."""
    options: dict[str, typing.Any] = {"replica_pool_size": 1, "replica_max_overflow": 1, "probe_interval": 60.0}
    async with serving(cluster, **options, catch_up_wait=600.0) as servers, Monitor(servers.replica):
        topology = servers.replica.topology
        candidate = typing.cast(Server, topology.choose_server(affinity="user"))
        other = next(member for member in topology.serving(None) if member is not candidate)
        behind = next(server for server in cluster.replicas if candidate.name == f"127.0.0.1:{server.port}")
        token = await now(servers)
        behind.pause_replay()
        try:
            cluster.primary.execute("CREATE TABLE news (); DROP TABLE news")
            written = int(cluster.primary.execute("SELECT pg_current_wal_flush_lsn() - '0/0'"))
            async with other.engine.connect() as busy:
                await busy.execute(WHERE)
                session = reading(servers, after=dataclasses.replace(token, lsn=written), affinity="user")
                assert session.decision.server == candidate.name
                async with session:
                    assert await session.scalar(WHERE)
                    assert session.decision.server == other.name
                    assert not typing.cast(ReplicaSession, session.sync_session).ends_at_once
        finally:
            behind.resume_replay()


async def test_a_write_waits_for_no_replica(cluster: LocalCluster) -> None:
    """It uses the primary in any case."""
    async with serving(cluster, catch_up_wait=600.0) as servers, Monitor(servers.replica):
        session = reading(servers, after=await ahead(servers))
        async with session, session.begin_nested():
            assert not await session.scalar(WHERE)


async def test_a_read_that_is_cancelled_while_it_waits_still_waits_when_it_is_tried_again(
    cluster: LocalCluster,
) -> None:
    """INVARIANT: a cancelled wait must not let a session read stale data."""
    async with serving(cluster, catch_up_wait=600.0) as servers, Monitor(servers.replica):
        session = reading(servers, after=await ahead(servers))
        async with session:
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await session.scalar(WHERE)


async def test_execution_options_go_along_wherever_the_read_ends(cluster: LocalCluster) -> None:
    """The options of the engine of all replicas apply on the server that finally reads."""
    async with serving(cluster, catch_up_wait=1.0) as servers, Monitor(servers.replica):
        optioned = servers.replica.execution_options(schema_translate_map={"a": "b"})
        for token, served in ((await ahead(servers), False), (await now(servers), True)):
            servers.replica.topology.positions.reached.clear()
            engine = optioned.choose(after=token)
            assert isinstance(engine, CatchUpEngine)
            assert engine.get_execution_options() == {"schema_translate_map": {"a": "b"}}
            further = engine.execution_options(logging_token="further")
            expected = {"schema_translate_map": {"a": "b"}, "logging_token": "further"}
            assert expected.items() <= further.get_execution_options().items()
            assert expected.items() <= further.candidate.get_execution_options().items()
            async with RoutedSession(engine, primary=servers.primary, intent=Intent.read()) as session:
                assert await session.scalar(WHERE) is served
            async with engine.connect() as connection:
                assert not await connection.scalar(WHERE)
                assert connection.sync_connection is not None
                assert "schema_translate_map" in connection.sync_connection.get_execution_options()


async def test_a_bounded_read_asks_for_an_unknown_position_of_the_primary(cluster: LocalCluster) -> None:
    """The monitor probes rarely here; the primary is asked for the missing position, and the next read uses it too."""
    async with serving(cluster, probe_interval=60.0, catch_up_wait=5.0) as servers, Monitor(servers.replica):
        bound = Bounded(dt.timedelta(milliseconds=500))
        positions, oldest = servers.replica.topology.positions, bound.lag.total_seconds()
        await until(lambda: time.monotonic() - typing.cast(float, positions.answered_at) > oldest)
        for _ in range(2):
            async with reading(servers, consistency=bound) as session:
                assert await session.scalar(WHERE)


async def test_a_frozen_replica_delays_no_read_that_another_can_serve(
    disposable_cluster: LocalCluster,
) -> None:
    """INVARIANT: the first replica that has caught up serves; a silent one is not waited for."""
    frozen, other = disposable_cluster.replicas
    settings: dict[str, typing.Any] = {"probe_interval": 60.0, "probe_timeout": 30.0, "catch_up_wait": 20.0}
    async with serving(disposable_cluster, **settings) as servers, Monitor(servers.replica):
        frozen.freeze()
        disposable_cluster.primary.execute("CREATE TABLE stock (n int)")
        disposable_cluster.primary.execute("SELECT pg_switch_wal()")
        token = await now(servers)
        for _ in range(4):
            async with reading(servers, after=token) as session:
                assert await session.scalar(text("SELECT inet_server_port()")) == other.port
        frozen.thaw()


async def test_only_the_chosen_replica_is_asked(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """INVARIANT: the first read after each write asks one server and reads there; the next one uses the next server."""
    monkeypatch.setattr(freshness, "CHOSEN_TIMEOUT", 30.0)  # the machine may be busy
    settings: dict[str, typing.Any] = {"probe_interval": 60.0, "balancing": "round-robin"}
    async with serving(cluster, **settings) as servers, Monitor(servers.replica) as monitor:
        topology = servers.replica.topology
        topology.watcher = asking = Asking(monitor)
        served = []
        for _ in range(6):
            cluster.primary.execute("CREATE TABLE news (); DROP TABLE news")
            token = await now(servers)
            asking.asked.clear()
            async with reading(servers, after=token) as session:
                assert await session.scalar(WHERE)
                served.append(session.decision.server)
            assert asking.asked == served[-1:]

        assert served[:2] * 3 == served
        assert len(set(served)) == 2


class Asking:
    """Watches the servers with a monitor, and records which are asked."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.asked: list[str] = []
        self.timeout = monitor.timeout

    def probe_now(self, name: str) -> collections.abc.Awaitable[object]:
        self.asked.append(name)
        return self._monitor.probe_now(name)

    async def primary_answers(self) -> bool:
        return await self._monitor.primary_answers()


async def test_with_no_replica_left_a_read_does_not_wait(disposable_cluster: LocalCluster) -> None:
    """No replica of the group is available: the primary reads."""
    async with serving(disposable_cluster, probe_interval=60.0) as servers, Monitor(servers.replica):
        session = reading(servers, after=await ahead(servers))
        topology = servers.replica.topology
        for replica in disposable_cluster.replicas:
            await asyncio.to_thread(replica.stop, "immediate")
        for server in topology.serving(None):
            server.health.declare_down()  # as the monitor does at its next probe, which is minutes away
        assert not topology.serving(None)
        freshness = Freshness(after=(await ahead(servers),))
        read = FreshRead(topology=topology, freshness=freshness, group=None, affinity=None, wait=600.0)
        assert await catch_up(read, first="gone") is None
        async with session:
            assert not await session.scalar(WHERE)
        # A probe of a server that is down has no result, and neither has one that finishes too late.
        assert topology.watcher is not None
        for member in topology.servers:
            await topology.watcher.probe_now(member.name)
        first = disposable_cluster.replicas[0]
        await asyncio.to_thread(first.start)
        await topology.watcher.probe_now(topology.servers[1].name)
        assert topology.servers[1].name.endswith(str(first.port))
        assert not topology.serving(None)


async def test_where_there_are_no_replicas_the_primary_alone_is_asked(cluster: LocalCluster) -> None:
    """A monitor of only a primary still knows its position."""
    async with serving(cluster, replicas=[], probe_interval=0.1) as servers, Monitor(servers.replica):
        topology = servers.replica.topology
        assert await is_written(topology, await now(servers), wait=0.1)
        assert not await is_written(topology, await ahead(servers), wait=0.1)


class Answering:
    """Watches a primary whose answers the test controls."""

    timeout = 0.0

    def __init__(self, topology: Topology, answers: list[Observation]) -> None:
        self._topology = topology
        self._answers = answers

    def probe_now(self, name: str) -> collections.abc.Awaitable[object]:
        return asyncio.sleep(0, name)

    async def primary_answers(self) -> bool:
        self._topology.positions.follow(self._answers.pop(0))
        return True


async def test_an_answer_older_than_the_token_is_not_used(cluster: LocalCluster) -> None:
    """INVARIANT: the write may have happened between the question and its answer; the next answer decides."""
    async with serving(cluster) as servers, Monitor(servers.replica):
        token, topology = await now(servers), servers.replica.topology
        old = Observation(
            at=0.0, in_recovery=False, lsn=1, written=1, timeline=token.timeline, system=1, database="app"
        )
        new = dataclasses.replace(old, at=time.monotonic() + 60, lsn=token.lsn + 10, written=token.lsn + 10)
        topology.positions = Positions()
        topology.watcher = Answering(topology, [old, new])
        theirs = dataclasses.replace(token, database=identify(1, "app"), lsn=token.lsn + 10)
        assert await is_written(topology, theirs, wait=0.1)
        topology.watcher = Answering(topology, [dataclasses.replace(new, at=new.at + 1)])
        assert not await is_written(topology, dataclasses.replace(theirs, lsn=theirs.lsn + 1), wait=0.1)


async def test_a_primary_that_answers_late_is_asked_again(cluster: LocalCluster) -> None:
    """Its answer from before the write says nothing about the write."""
    async with serving(cluster) as servers, Monitor(servers.replica):
        topology = servers.replica.topology
        client = Client(token=await now(servers), is_request=True)
        client.written(None)
        topology.watcher = Answering(topology, [])
        token = await Tokens(servers.settings, topology).of(client)
        assert token is not None
        assert token.lsn == LAST_LSN


async def test_without_servers_a_token_is_accepted_unchecked(cluster: LocalCluster) -> None:
    """It cannot be verified, and no server is asked."""
    async with serving(cluster) as servers, Monitor(servers.replica):
        token = await now(servers)
        tokens = Tokens(servers.settings)
        assert await tokens.admit([]) is None
        assert await tokens.admit([str(token)]) == token
        assert await tokens.of(Client(token=token, is_request=True)) == token

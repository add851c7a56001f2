"""A replica that lags, freezes, crashes or is overloaded leaves the rotation and returns; no read fails."""

import asyncio
import collections
import collections.abc
import contextlib
import datetime as dt
import functools
import time
import typing

import asyncpg
import pytest
from sqlalchemy import event, text

from benchmarks.wire import Wire
from modern_di_replicas import (
    STRONG,
    Monitor,
    NoReplicaAvailable,
    PrimaryEngine,
    Replica,
    ReplicationSettings,
    RoutedSession,
)
from modern_di_replicas.cluster.engines.create import create_primary_engine, create_replica_engine
from modern_di_replicas.cluster.pools import open_connections
from modern_di_replicas.observability import Ejected, ReadRefused, Returned, SnapshotPublished
from modern_di_replicas.routing.decision import Cause
from modern_di_replicas.routing.snapshot import Role
from modern_di_replicas.testing import LocalCluster, LocalServer
from tests.observability.recorder import Recorder
from tests.pgbouncer import not_behind_a_pooler
from tests.session.conftest import Servers, serving
from tests.waiting import until


CLIENTS, READS = 20, 5
# Slow on the server: as many clients, but fewer statements than two processors can execute.
WHERE = text("SELECT inet_server_port(), pg_is_in_recovery(), pg_sleep(0.1)")
OPEN_FOR_READS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'app-replica'"
OFF_WITHIN, BACK_WITHIN = 2.0, 5.0
"""In seconds, on an otherwise idle machine."""
BUSY = 5
"""Factor by which these times may increase on a busy machine."""
LONGEST_READ = 15.0
"""In seconds; without detection, a read waits for TCP or for its pool's timeout."""


@pytest.fixture(scope="module")
def three_replicas() -> collections.abc.Iterator[LocalCluster]:
    with LocalCluster(replicas=3) as cluster:
        yield cluster


class Load:
    """Clients that read continuously, and their results."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self.errors: list[BaseException] = []
        self.recent: collections.deque[int] = collections.deque(maxlen=2 * CLIENTS)
        self.total = 0
        self.worst = 0.0
        self.has_ended = False

    async def client(self) -> None:
        # Cancelled repeatedly: on Python 3.11 a cancellation can be lost in SQLAlchemy's queue, up to
        # 2.0.55 and 2.1.6 (its issue 13749, asyncio.wait_for).
        while not self.has_ended:
            began = time.monotonic()
            try:
                async with self._servers.session() as session:
                    port, _, _ = (await session.execute(WHERE)).one()
            except Exception as error:  # noqa: BLE001  # whatever a user would see
                self.errors.append(error)
                return
            self.worst = max(self.worst, time.monotonic() - began)
            self.recent.append(port)
            self.total += 1

    async def until(self, condition: collections.abc.Callable[[], bool], *, within: float) -> None:
        """Wait until the last reads satisfy a condition."""
        self.recent.clear()
        await until(lambda: len(self.recent) >= CLIENTS and condition(), seconds=within * BUSY)


@contextlib.asynccontextmanager
async def load(cluster: LocalCluster, **settings: typing.Any) -> collections.abc.AsyncIterator[tuple[Servers, Load]]:
    options = {
        "replica_pool_size": CLIENTS,
        "primary_pool_size": CLIENTS,
        "max_lag": dt.timedelta(seconds=1),
        "probe_interval": 0.2,
        "probe_timeout": 0.5,
        **settings,
    }
    async with serving(cluster, **options) as servers, Monitor(servers.replica):
        running = Load(servers)
        clients = [asyncio.create_task(running.client()) for _ in range(CLIENTS)]
        try:
            await running.until(lambda: set(running.recent) == {server.port for server in cluster.replicas}, within=5)
            yield servers, running
            assert running.errors == []
        finally:
            running.has_ended = True
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)


Fault = collections.abc.Callable[[LocalServer], None]


def terminate(server: LocalServer) -> None:
    server.stop("fast")


def crash(server: LocalServer) -> None:
    server.stop("immediate")


def freeze(server: LocalServer) -> None:
    server.freeze()


def start(server: LocalServer) -> None:
    server.start()


def thaw(server: LocalServer) -> None:
    server.thaw()


@pytest.mark.parametrize("victims", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("fault", "recovery"), [(terminate, start), (crash, start), (freeze, thaw)])
async def test_a_replica_that_fails_leaves_the_rotation_and_returns(
    three_replicas: LocalCluster, fault: Fault, recovery: Fault, victims: int
) -> None:
    """INVARIANT: no read fails, with twenty clients."""
    hit = three_replicas.replicas[:victims]
    ports = {server.port for server in hit}
    try:
        async with load(three_replicas) as (_, running):
            await asyncio.gather(*(asyncio.to_thread(fault, server) for server in hit))
            await running.until(lambda: not ports & set(running.recent), within=OFF_WITHIN)
            await asyncio.gather(*(asyncio.to_thread(recovery, server) for server in hit))
            await running.until(lambda: ports <= set(running.recent), within=BACK_WITHIN)
            assert running.worst < LONGEST_READ
    finally:
        for server in hit:
            server.thaw()
            server.start()


@pytest.mark.parametrize("victims", [1, pytest.param(2, marks=pytest.mark.slow)])
async def test_a_replica_behind_its_max_lag_leaves_the_rotation_and_returns(
    three_replicas: LocalCluster, victims: int
) -> None:
    """Replay is paused while the primary continues to write: lag is measured, not inferred from silence."""
    hit = three_replicas.replicas[:victims]
    ports = {server.port for server in hit}
    three_replicas.primary.execute("CREATE TABLE IF NOT EXISTS busy (n int)")
    three_replicas.catch_up()
    try:
        async with load(three_replicas, max_lag=dt.timedelta(seconds=0.5)) as (servers, running):
            for server in hit:
                await asyncio.to_thread(server.pause_replay)
            await asyncio.to_thread(three_replicas.primary.execute, "INSERT INTO busy VALUES (1)")
            await running.until(lambda: not ports & set(running.recent), within=OFF_WITHIN)
            topology = servers.replica.topology
            assert topology.snapshot is not None
            states = [topology.snapshot.servers[f"127.0.0.1:{port}"] for port in ports]
            assert all(state.lag_bytes and state.lag_seconds and state.lag_seconds > 0.5 for state in states)
            for server in hit:
                await asyncio.to_thread(server.resume_replay)
            await running.until(lambda: ports <= set(running.recent), within=BACK_WITHIN)
    finally:
        for server in hit:
            server.resume_replay()


async def test_a_replica_behind_a_network_that_drops_everything_is_like_a_frozen_one(
    three_replicas: LocalCluster,
) -> None:
    """It neither answers nor refuses, so only the monitor's timeout detects it."""
    victim, *others = three_replicas.replicas
    async with Wire(victim.port) as wire:
        through_wire = victim.url.replace(f":{victim.port}/", f":{wire.port}/")
        replicas = [through_wire, *(server.url for server in others)]
        async with load(three_replicas, replicas=replicas) as (_, running):
            wire.is_open.clear()
            await running.until(lambda: victim.port not in running.recent, within=OFF_WITHIN)
            wire.is_open.set()
            await running.until(lambda: victim.port in running.recent, within=BACK_WITHIN)


@not_behind_a_pooler("it accepts clients while its server is down")
async def test_a_replica_that_freezes_at_its_first_connection_delays_no_read(three_replicas: LocalCluster) -> None:
    """INVARIANT: all connections to the server are closed, including those that wait for its version."""
    victim = three_replicas.replicas[0]
    async with Wire(victim.port) as wire:
        replicas = [victim.url.replace(f":{victim.port}/", f":{wire.port}/")]
        options: dict[str, typing.Any] = {"replicas": replicas, "probe_interval": 0.2, "probe_timeout": 0.5}
        async with serving(three_replicas, **options) as servers, Monitor(servers.replica):

            def freeze_when_all_are_connected(connection: typing.Any, record: object) -> None:  # noqa: ARG001  # the event's signature
                connection.run_async(lambda _: until(lambda: wire.accepted >= expected))
                wire.is_open.clear()

            expected = wire.accepted + READS

            async def read() -> tuple[bool, float]:
                began = time.monotonic()
                async with servers.session() as session:
                    return await session.scalar(text("SELECT pg_is_in_recovery()")), time.monotonic() - began

            topology = servers.replica.topology
            (engine,) = (member.engine for member in topology.servers if not member.is_declared_primary)
            event.listen(engine.sync_engine, "connect", freeze_when_all_are_connected, insert=True)
            try:
                async with asyncio.timeout(30):
                    answers = await asyncio.gather(*(read() for _ in range(READS)))
            finally:
                wire.is_open.set()
            assert [is_replica for is_replica, _ in answers] == [False] * READS
            assert max(took for _, took in answers) < LONGEST_READ


async def test_a_connection_that_is_being_opened_ends_with_the_others(three_replicas: LocalCluster) -> None:
    """INVARIANT: nothing is written to a former primary, even on a connection that was being opened then."""
    async with Wire(three_replicas.primary.port) as wire:
        primary = three_replicas.primary.url.replace(f":{three_replicas.primary.port}/", f":{wire.port}/")
        async with serving(three_replicas, primary=primary) as servers:
            wire.is_open.clear()
            connecting = asyncio.create_task(servers.primary.connect().start())
            await until(lambda: wire.accepted > 0)
            servers.primary.follow(three_replicas.replicas[0].url)
            wire.is_open.set()
            with pytest.raises(ConnectionRefusedError, match="standby"):  # it connects to the engine's current server
                await connecting


@pytest.mark.parametrize(("strike", "heal"), [(crash, start), (terminate, start), (freeze, thaw)])
async def test_a_replica_that_was_down_between_reads_serves_the_next_ones(
    disposable_cluster: LocalCluster, caplog: pytest.LogCaptureFixture, strike: Fault, heal: Fault
) -> None:
    """Idle connections in its pool are not used: each would count as another failure."""
    victim = disposable_cluster.replicas[0]
    async with (
        serving(disposable_cluster, replicas=[victim.url], probe_interval=0.05, probe_timeout=0.5) as servers,
        Monitor(servers.replica),
    ):
        topology = servers.replica.topology

        async def read() -> int | None:
            async with servers.session() as session:
                port, _, _ = (await session.execute(WHERE)).one()
                return typing.cast(int, port)

        assert await asyncio.gather(*(read() for _ in range(5))) == [victim.port] * 5
        await asyncio.to_thread(strike, victim)
        await until(lambda: not topology.serving(None))
        await asyncio.to_thread(heal, victim)
        await until(lambda: bool(topology.serving(None)))
        assert await asyncio.gather(*(read() for _ in range(5))) == [victim.port] * 5
        assert "failed a statement" not in caplog.text


async def test_a_read_that_waits_for_a_connection_of_a_frozen_replica_is_served_elsewhere(
    disposable_cluster: LocalCluster,
) -> None:
    """INVARIANT: the detection time bounds the slowest read, including reads that have no connection yet.

    Each would otherwise try to connect, and each attempt takes as long as a probe.
    """
    victim = disposable_cluster.replicas[0]
    pools = {"replica_pool_size": 2, "replica_max_overflow": 0, "replica_pool_timeout": 60.0, "primary_pool_size": 40}
    settings: dict[str, typing.Any] = {"replicas": [victim.url], "probe_interval": 0.2, "probe_timeout": 0.5, **pools}
    async with serving(disposable_cluster, **settings) as servers, Monitor(servers.replica):

        async def read() -> tuple[bool, float]:
            began = time.monotonic()
            async with servers.session() as session:
                _, is_replica, _ = (await session.execute(WHERE)).one()
            return is_replica, time.monotonic() - began

        assert await asyncio.gather(read(), read())
        await asyncio.to_thread(victim.freeze)
        try:
            answers = await asyncio.gather(*(read() for _ in range(40)))
        finally:
            await asyncio.to_thread(victim.thaw)
        assert not any(is_replica for is_replica, _ in answers)
        assert max(took for _, took in answers) < 10 * settings["probe_timeout"]  # one by one: 20 times


@pytest.mark.parametrize("which", ["primary", "replica"])
async def test_an_application_ends_while_a_server_is_frozen(
    disposable_cluster: LocalCluster, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing a connection to a frozen server times out; otherwise a rolling deployment would hang."""
    monkeypatch.setattr(open_connections, "CLOSE_TIMEOUT", 0.1)
    victim = disposable_cluster.primary if which == "primary" else disposable_cluster.replicas[0]
    async with contextlib.AsyncExitStack() as stack:
        replicas = [disposable_cluster.replicas[0].url]
        servers = await stack.enter_async_context(serving(disposable_cluster, replicas=replicas))
        await stack.enter_async_context(Monitor(servers.replica))
        for session in (servers.session(), RoutedSession(servers.primary)):
            async with session:
                await session.execute(WHERE)
        await asyncio.to_thread(victim.freeze)
        try:
            async with asyncio.timeout(20):
                await stack.aclose()
        finally:
            await asyncio.to_thread(victim.thaw)


@not_behind_a_pooler("it accepts clients while its server is down")
async def test_a_replica_without_free_connections_is_passed_over(three_replicas: LocalCluster) -> None:
    """A session that gets no connection ejects the replica and reads elsewhere; later the replica returns."""
    victim, recorder = three_replicas.replicas[0], Recorder()
    name = f"127.0.0.1:{victim.port}"

    taken = contextlib.ExitStack()

    async def take_one_more() -> bool:
        """Take a connection if there is one; return whether a session that got none has ejected the replica."""
        with contextlib.suppress(asyncpg.TooManyConnectionsError):
            taken.callback((await asyncpg.connect(victim.dsn)).terminate)
        return Ejected(server=name, by="session") in recorder.events

    # A pool that keeps few connections requests new ones all the time.
    options = {"replica_pool_size": 1, "replica_max_overflow": CLIENTS, "hooks": [recorder]}
    async with load(three_replicas, **options) as (_, running):
        with taken:
            await asyncio.gather(*(take_one_more() for _ in range(70)))
            assert recorder.of(Ejected) == []
            await until(take_one_more)
        await until(lambda: Returned(server=name) in recorder.events)
        await running.until(lambda: victim.port in running.recent, within=BACK_WITHIN)


async def test_an_idle_primary_makes_no_lag(three_replicas: LocalCluster) -> None:
    """INVARIANT: without new writes there is no lag, however long ago the last write was."""
    limit, recorder = 0.3, Recorder()
    settings = {"probe_interval": 0.05, "max_lag": dt.timedelta(seconds=limit), "hooks": [recorder]}
    three_replicas.catch_up()
    async with serving(three_replicas, **settings) as servers, Monitor(servers.replica):
        began = time.monotonic()
        recorder.events.clear()
        await until(lambda: time.monotonic() > began + 2 * limit)
        snapshots = [event.snapshot for event in recorder.of(SnapshotPublished) if event.snapshot is not None]
    assert snapshots
    for snapshot in snapshots:
        lags = [state.lag_seconds for state in snapshot.servers.values() if state.role is Role.STANDBY]
        assert len(lags) == 3
        assert all(lag is not None and lag < limit for lag in lags)


def is_over(moment: float) -> bool:
    return time.monotonic() >= moment


async def test_without_a_primary_the_replicas_serve_and_the_snapshot_says_since_when(
    disposable_cluster: LocalCluster,
) -> None:
    """A stale answer is better than none, and the snapshot says that it may be stale."""
    async with (
        serving(disposable_cluster, max_lag=dt.timedelta(seconds=0.2), probe_interval=0.05) as servers,
        Monitor(servers.replica),
    ):
        topology = servers.replica.topology
        await asyncio.to_thread(disposable_cluster.primary.stop, "immediate")
        await until(lambda: topology.leader is None)
        lost_at = time.monotonic()
        for moment in (lost_at, lost_at + 0.3):  # before and after the limit
            await until(functools.partial(is_over, moment))
            async with servers.session() as session:
                assert await session.scalar(text("SELECT pg_is_in_recovery()")) is True
        assert topology.snapshot is not None
        standbys = [state for state in topology.snapshot.servers.values() if state.role is Role.STANDBY]
        assert len(standbys) == 2
        assert all(state.lag_unknown_since is not None and state.lag_unknown_since <= lost_at for state in standbys)


async def test_with_all_replicas_out_the_primary_serves_unless_it_is_protected(
    disposable_cluster: LocalCluster,
) -> None:
    """Both are valid; the settings decide."""
    for replica in disposable_cluster.replicas:
        replica.stop()
    async with serving(disposable_cluster) as servers, Monitor(servers.replica), servers.session() as session:
        assert await session.scalar(text("SELECT pg_is_in_recovery()")) is False
    recorder = Recorder()
    strict: dict[str, typing.Any] = {"primary_reads": False, "hooks": [recorder]}
    async with serving(disposable_cluster, **strict) as servers, Monitor(servers.replica):
        with pytest.raises(NoReplicaAvailable) as caught:
            servers.session()
        assert caught.value.group is None
        assert recorder.of(ReadRefused) == [ReadRefused(by="primary_reads")]


async def test_a_full_pool_fails_where_the_primary_is_protected(three_replicas: LocalCluster) -> None:
    """Overload must not move to the primary if the settings forbid it."""
    settings = {"replica_pool_size": 1, "replica_max_overflow": 0, "replica_pool_timeout": 0.01}
    async with (
        serving(three_replicas, primary_reads=False, **settings) as servers,
        contextlib.AsyncExitStack() as stack,
    ):
        sessions = [await stack.enter_async_context(servers.session()) for _ in range(4)]
        for session in sessions[:3]:
            await session.scalar(WHERE)
        with pytest.raises(NoReplicaAvailable):
            await sessions[3].scalar(WHERE)


@not_behind_a_pooler("it accepts clients while its server is down")
async def test_the_engine_of_all_replicas_gives_connections_to_healthy_ones(disposable_cluster: LocalCluster) -> None:
    """For Core, reports and other libraries: a failed replica is skipped; without any, the primary is used."""
    async with serving(disposable_cluster) as servers:

        async def port() -> int:
            async with servers.replica.connect() as connection:
                return typing.cast(int, await connection.scalar(text("SELECT inet_server_port()")))

        first, second = (server.port for server in disposable_cluster.replicas)
        assert {await port() for _ in range(4)} == {first, second}
        disposable_cluster.replicas[0].stop()
        await servers.replica.dispose()
        assert {await port() for _ in range(6)} == {second}
        disposable_cluster.replicas[1].stop()
        await servers.replica.dispose()
        assert await port() == disposable_cluster.primary.port
        assert servers.replica.pool.status()
        servers.replica.sync_engine.dispose()
        assert typing.cast(typing.Any, servers.replica.pool).checkedout() == 0


async def test_restarts_fail_no_read(three_replicas: LocalCluster) -> None:
    """Stopped and started between two probes: every pooled connection is closed, and no read fails."""
    async with load(three_replicas) as (_, running):
        for server in three_replicas.replicas:
            await asyncio.to_thread(server.restart)
            await running.until(lambda port=server.port: port in running.recent, within=BACK_WITHIN)  # type: ignore[misc]  # a lambda's default has no type


@not_behind_a_pooler("it accepts clients while its server is down")
async def test_a_checkout_is_passed_on_from_full_pools_and_stops_at_errors_of_the_program(
    three_replicas: LocalCluster,
) -> None:
    """An error that another server may not have leads to another attempt; an error of the program is raised."""
    settings = {"replica_pool_size": 1, "replica_max_overflow": 0, "replica_pool_timeout": 0.01}
    async with serving(three_replicas, **settings) as servers, contextlib.AsyncExitStack() as stack:
        ports = []
        for _ in range(4):
            connection = await stack.enter_async_context(servers.replica.connect())
            ports.append(await connection.scalar(text("SELECT inet_server_port()")))
        assert sorted(ports) == sorted(server.port for server in three_replicas.servers)

    def fails(*_: object) -> None:
        msg = "a bug in a listener"
        raise ValueError(msg)

    async with serving(three_replicas) as servers:
        topology = servers.replica.topology
        for member in topology.servers:
            event.listen(member.engine.sync_engine, "connect", fails)
        with pytest.raises(ValueError, match="bug"):
            await servers.replica.connect().start()
        # SQLAlchemy before 2.0.53 leaves the connection open where nothing can close it (its issue 13548).
        await until(lambda: all(server.execute(OPEN_FOR_READS) == "0" for server in three_replicas.servers))


async def test_affinity_keeps_a_client_on_its_replica_while_that_one_lives(disposable_cluster: LocalCluster) -> None:
    """INVARIANT: the reads of one client do not go back in time by changing the replica."""
    async with serving(disposable_cluster) as servers:
        homes = {key: servers.replica.choose(affinity=key) for key in map(str, range(50))}
        assert len(set(homes.values())) == 2
        assert all(servers.replica.choose(affinity=key) is home for key, home in homes.items())


async def test_weights_are_shares(three_replicas: LocalCluster) -> None:
    """Weights of 9:1 serve exactly 9:1 of consecutive requests."""
    first, second, _ = three_replicas.replicas
    replicas = [Replica(first.url, "heavy", weight=9), Replica(second.url, "light", weight=1)]
    for balancing in ("least-in-use", "round-robin"):
        async with serving(three_replicas, replicas=replicas, balancing=balancing) as servers:
            chosen = collections.Counter(typing.cast(typing.Any, servers.replica.choose()).label for _ in range(100))
            assert chosen == {"heavy": 90, "light": 10}


async def test_a_full_pool_is_passed_over_while_another_has_room(three_replicas: LocalCluster) -> None:
    """A read does not wait for a full replica while another has free connections."""
    settings = {"replica_pool_size": 1, "replica_max_overflow": 0, "balancing": "round-robin"}
    async with serving(three_replicas, **settings) as servers, contextlib.AsyncExitStack() as stack:
        ports = set()
        for _ in range(3):
            session = await stack.enter_async_context(servers.session())
            ports.add((await session.execute(WHERE)).one()[0])
        assert ports == {server.port for server in three_replicas.replicas}


def test_execution_options_go_along_to_the_primary() -> None:
    """A read that no replica may serve has the same options."""
    url = "postgresql+asyncpg://app@db-{}/shop"
    settings = ReplicationSettings(primary=url.format(1), replicas=[url.format(2)])
    replica = create_replica_engine(settings, create_primary_engine(settings)).execution_options(label="report")

    chosen = replica.choose(consistency=STRONG)

    assert isinstance(chosen, PrimaryEngine)
    assert chosen.decision.cause is Cause.STRONG
    assert chosen.sync_engine.get_execution_options()["label"] == "report"

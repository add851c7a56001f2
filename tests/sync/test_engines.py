"""The engines of synchronous applications: options, listeners, groups, levels and limits."""

import dataclasses
import datetime as dt
import sys
import threading
import time
import types
import typing
import weakref

import pytest
from sqlalchemy import Engine, event, make_url, text
from sqlalchemy.orm import sessionmaker

from modern_di_replicas import (
    Bounded,
    ConfigurationError,
    Intent,
    NoReplicaAvailable,
    PrimaryUnavailable,
    Replica,
    ReplicationSettings,
    UnknownGroupError,
    use_primary,
)
from modern_di_replicas.cluster.engines.catch_up import CatchUpRole
from modern_di_replicas.cluster.pools.fence import Fence
from modern_di_replicas.cluster.pools.pre_ping import RECHECK_SECONDS
from modern_di_replicas.consistency.client import current_client
from modern_di_replicas.observability.events import Decided, Shadowed, ShadowWrote
from modern_di_replicas.observability.hook import Event
from modern_di_replicas.observability.request import decisions_in
from modern_di_replicas.routing.decision import Cause
from modern_di_replicas.sync import Monitor, RoutedSession, processes
from modern_di_replicas.sync.engines import create_primary_engine
from modern_di_replicas.testing import LocalCluster
from tests.cluster.test_direct_use import use_detached
from tests.sync.conftest import Servers, serving
from tests.waiting import wait_for


IN_RECOVERY = text("SELECT pg_is_in_recovery()")


def gone_of(shop: ReplicationSettings) -> Replica:
    """Return a replica that refuses connections."""
    url = make_url(shop.declared_primary.url).set(port=1)
    return Replica(url.render_as_string(hide_password=False), "gone")


def test_options_give_engines_of_the_same_type_and_pool(servers: Servers) -> None:
    """`execution_options()` of each engine keeps its role, its pool and its listeners."""
    with_option = servers.replica.execution_options(note="ours")
    assert type(with_option).__mro__[1] is type(servers.replica)
    assert with_option.pool is servers.replica.pool
    with RoutedSession(with_option) as session:
        assert session.scalar(IN_RECOVERY)
        bind = session.get_bind()
        assert isinstance(bind, Engine)
        assert bind.get_execution_options()["note"] == "ours"
        session.execute(text("UPDATE account SET balance = balance"))  # escalates to the primary, with the option
        bind = session.get_bind()
        assert isinstance(bind, Engine)
        assert bind.get_execution_options()["note"] == "ours"
    primary = servers.primary.execution_options(stream_results=True)
    assert isinstance(primary, type(servers.primary))
    assert primary.in_use == 0
    with primary.connect() as connection:
        assert connection.get_execution_options()["stream_results"]
        assert servers.primary.in_use == primary.in_use == 1
    one = servers.replica.choose().execution_options(note="one")
    with RoutedSession(one) as session:
        assert session.scalar(IN_RECOVERY)


def test_options_can_be_changed_in_place(servers: Servers) -> None:
    """`update_execution_options()` of the engine of all replicas reaches every replica."""
    servers.replica.update_execution_options(note="all")
    for engine in servers.replica.engines.values():
        assert engine.get_execution_options()["note"] == "all"
    with servers.session() as session:
        assert session.scalar(IN_RECOVERY)


def test_listeners_on_the_replicas_engine_reach_every_replica(servers: Servers) -> None:
    """A listener on `ReplicaEngine`, or on the result of its `execution_options()`, is called once per statement."""
    heard: list[str] = []
    with_option = servers.replica.execution_options(note="heard")
    for target, name in ((servers.replica, "all"), (with_option, "with option")):
        event.listen(target, "before_cursor_execute", lambda *_, name=name: heard.append(name))
    connects: list[object] = []
    event.listen(servers.replica, "connect", lambda *_: connects.append(_))
    with servers.session() as session:
        session.scalar(IN_RECOVERY)
    assert heard == ["all"]
    assert len(connects) == 1
    with RoutedSession(with_option) as session:
        session.scalar(IN_RECOVERY)
    assert sorted(heard) == ["all", "all", "with option"]


def test_groups_and_levels_choose_the_server(shop: ReplicationSettings) -> None:
    """A group has its own replicas; an unknown one is an error; a bounded read uses a replica within the bound."""
    first, second = (dataclasses.replace(one, groups={name}) for one, name in zip(shop.servers, "ab", strict=True))
    with serving(shop, replicas=[first, second]) as servers, Monitor(servers.replica):
        for server, group in ((first, "a"), (second, "b")):
            intent = Intent.read(group=group)
            with RoutedSession(servers.replica, intent=intent) as session:
                assert session.scalar(IN_RECOVERY)
                assert session.decision.server == server.label
        with pytest.raises(UnknownGroupError):
            servers.replica.choose("c")
        bounded = Intent.read(group="a", consistency=Bounded(lag=dt.timedelta(seconds=30)))
        with RoutedSession(servers.replica, intent=bounded) as session:
            assert session.scalar(IN_RECOVERY)


def test_a_read_waits_for_its_replica_in_the_background_thread(
    replicated_cluster: LocalCluster, shop: ReplicationSettings
) -> None:
    """While no replica has a write, the primary reads; with `wait`, a replica that has caught up."""
    with serving(shop) as servers, Monitor(servers.replica):
        for replica in replicated_cluster.replicas:
            replica.pause_replay()
        try:
            with servers.primary.begin() as connection:
                connection.execute(text("UPDATE account SET balance = balance"))
            token = current_client().token
            chosen = servers.replica.choose(after=token)
            assert isinstance(chosen, CatchUpRole)
            with chosen.connect() as connection:
                assert not connection.scalar(IN_RECOVERY)
            optioned = chosen.execution_options(note="caught up")
            with RoutedSession(optioned) as session:
                assert not session.scalar(IN_RECOVERY)
                assert session.decision.cause is Cause.NOT_FRESH
            raw = optioned.raw_connection()
            raw.close()
            resume = threading.Timer(0.3, replicated_cluster.replicas[0].resume_replay)
            resume.start()
            patient = Intent.read(after=token, wait=dt.timedelta(seconds=30))
            with RoutedSession(servers.replica, intent=patient) as session:
                assert session.scalar(IN_RECOVERY)
            resume.join()
        finally:
            for replica in replicated_cluster.replicas:
                replica.resume_replay()


def test_without_a_replica_the_primary_reads_unless_it_is_not_to(shop: ReplicationSettings) -> None:
    """`primary_reads=False` makes it an error, in sessions and in Core."""
    gone = [gone_of(shop)]
    with serving(shop, replicas=gone) as servers:
        with servers.session() as session:
            assert not session.scalar(IN_RECOVERY)
            assert session.decision.cause is Cause.REPLICA_FAILED
        with servers.replica.connect() as connection:
            assert not connection.scalar(IN_RECOVERY)
    with serving(shop, replicas=gone, primary_reads=False) as servers:
        with servers.session() as session, pytest.raises(NoReplicaAvailable):
            session.scalar(IN_RECOVERY)
        with pytest.raises(NoReplicaAvailable), servers.replica.connect():
            pytest.fail("there is no replica")


def test_the_fallback_limit_counts_threads(shop: ReplicationSettings) -> None:
    """It limits the concurrent reads that fall back to the primary; one more waits, and then fails."""
    gone = [gone_of(shop)]
    with serving(shop, replicas=gone, primary_fallback_limit=1, replica_pool_timeout=0.2) as servers:
        with servers.session() as session:
            session.scalar(IN_RECOVERY)
            with servers.session() as another, pytest.raises(NoReplicaAvailable):
                another.scalar(IN_RECOVERY)
            release = threading.Timer(0.05, session.close)
            release.start()
            with servers.session() as third:
                assert not third.scalar(IN_RECOVERY)
            release.join()
        with servers.replica.choose().connect() as connection:
            assert not connection.scalar(IN_RECOVERY)
        with use_primary(), RoutedSession(servers.replica) as session:  # it is not limited
            assert not session.scalar(IN_RECOVERY)


def test_a_forked_process_has_its_own_fallback_limit(shop: ReplicationSettings) -> None:
    """INVARIANT: a read that began in its parent and ends in both processes does not raise the limit."""
    gone = [gone_of(shop)]
    with serving(shop, replicas=gone, primary_fallback_limit=1, replica_pool_timeout=0.0) as servers:
        with servers.session() as session:
            session.scalar(IN_RECOVERY)
            servers.replica.topology.forget_process()
        with servers.session() as first, servers.session() as second:
            first.scalar(IN_RECOVERY)
            with pytest.raises(NoReplicaAvailable):
                second.scalar(IN_RECOVERY)


@pytest.mark.parametrize("role", ["primary", "replica"])
def test_a_connection_that_is_detached_from_its_pool_works_until_it_is_closed(
    servers: Servers, caplog: pytest.LogCaptureFixture, role: str
) -> None:
    """Its place in the pool is free, and closing it ends it, as with SQLAlchemy's engines."""
    engine = servers.primary if role == "primary" else servers.replica.topology.servers[1].engine
    with engine.connect() as connection:
        pid = use_detached(connection)
        assert servers.checked_out() == 0
    of_pid = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")

    def has_ended() -> bool:
        with engine.connect() as another:  # a transaction's view of others does not change
            return not another.scalar(of_pid, {"pid": pid})

    wait_for(has_ended)
    assert caplog.messages == []


@pytest.mark.parametrize("role", ["primary", "replica"])
def test_a_connection_that_ended_while_it_was_held_is_replaced(
    servers: Servers, replicated_cluster: LocalCluster, role: str
) -> None:
    """INVARIANT: without an open transaction its return sends nothing, so the next checkout has to detect it."""
    is_primary = role == "primary"
    server = replicated_cluster.primary if is_primary else replicated_cluster.replicas[0]
    found = servers.primary if is_primary else servers.replica.topology.servers[1].engine
    engine, pid_of_backend = found.execution_options(isolation_level="AUTOCOMMIT"), text("SELECT pg_backend_pid()")
    with engine.connect() as connection:
        pid = connection.scalar(pid_of_backend)
        taken = time.monotonic()
        server.execute(f"SELECT pg_terminate_backend({pid}, 20000)")
        wait_for(lambda: time.monotonic() - taken > RECHECK_SECONDS)
    with engine.connect() as connection:
        assert connection.scalar(pid_of_backend) != pid


def test_statements_are_read_behind_a_pooler_without_names(shop: ReplicationSettings) -> None:
    """With `pooled=True` psycopg prepares no statements, and reads stay in autocommit."""
    with serving(shop, pooled=True) as servers:
        for _ in range(10):
            with servers.session() as session:
                assert session.scalar(IN_RECOVERY)
                prepared = session.scalar(text("SELECT count(*) FROM pg_prepared_statements"))
                assert prepared == 0


def test_a_former_primary_is_fenced_until_another_is_followed(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout waits at the fence, fails after its timeout, and passes once a primary is known."""
    waits, wait_at_fence = threading.Event(), Fence.passed

    async def noted(fence: Fence) -> None:
        waits.set()
        await wait_at_fence(fence)

    monkeypatch.setattr(Fence, "passed", noted)
    servers.primary.fence(timeout=30.0)
    assert servers.primary.is_fenced
    passed: list[bool] = []

    def check_out() -> None:
        with servers.primary.connect() as connection:
            passed.append(connection.scalar(IN_RECOVERY) is False)

    waiting = threading.Thread(target=check_out)
    waiting.start()
    assert waits.wait(30)
    servers.primary.follow(servers.settings.declared_primary.url)
    waiting.join(30)
    assert passed == [True]
    servers.primary.fence(timeout=0.1)
    with pytest.raises(PrimaryUnavailable), servers.primary.connect():
        pytest.fail("it is fenced")
    servers.primary.follow(servers.settings.declared_primary.url)
    with servers.primary.connect() as connection:
        assert connection.scalar(IN_RECOVERY) is False


def test_isolation_of_the_intent_counts_on_both_roles(servers: Servers) -> None:
    """The unit of work has its isolation on the replica and on the primary."""
    level = text("SHOW transaction_isolation")
    for engine in (servers.replica, servers.primary):
        intent = Intent.read(isolation="REPEATABLE READ")
        with RoutedSession(engine, intent=intent) as session:
            assert session.scalar(level) == "repeatable read"
    with RoutedSession(servers.replica, intent=Intent.read(isolation="REPEATABLE READ")) as session:
        session.execute(text("UPDATE account SET balance = balance"))
        assert session.scalar(level) == "repeatable read"


def test_a_transaction_of_a_sessionmaker_commits_on_the_primary(servers: Servers) -> None:
    """`sessionmaker.begin()` on the primary's engine is an ordinary session."""
    factory: typing.Any = sessionmaker(servers.primary, class_=RoutedSession)
    with factory.begin() as session:
        session.execute(text("UPDATE account SET balance = balance"))
        assert session.decision.cause is Cause.WRITE
    with factory() as session:
        assert session.another().decision == session.decision


def test_without_reads_on_the_primary_another_replica_continues(shop: ReplicationSettings) -> None:
    """If its replica fails, a unit of work uses another one that is fresh enough."""
    replicas = [gone_of(shop), shop.servers[0]]
    with serving(shop, replicas=replicas, primary_reads=False, balancing="round-robin") as servers:
        with Monitor(servers.replica):
            pass  # the pool forgets a connection that it knows to be closed
        served = set()
        for _ in range(4):
            with servers.session() as session:
                assert session.scalar(IN_RECOVERY)
                served.add(session.decision.server)
        assert served == {shop.servers[0].label}


def test_in_shadow_mode_the_primary_serves_and_the_writes_are_counted(shop: ReplicationSettings) -> None:
    """The hooks receive what a replica would have done; the decision is in the state of the request."""
    events: list[Event] = []

    class Recorder:
        def on_event(self, event: Event) -> None:
            events.append(event)

    state: dict[str, typing.Any] = {}
    with serving(shop, shadow=True, hooks=[Recorder()]) as servers, decisions_in(state), servers.session() as session:
        assert not session.scalar(IN_RECOVERY)
        session.execute(text("UPDATE account SET balance = balance"))
        session.rollback()
        assert state["decision"].cause is Cause.SHADOW
    assert [type(one) for one in events] == [Shadowed, Decided, ShadowWrote]


def test_a_forked_process_would_leave_the_connections_to_its_parent(servers: Servers) -> None:
    """Discarded connections are neither closed nor reused; `test_processes.py` forks real processes."""
    opened: list[typing.Any] = []
    with servers.primary.connect() as connection:
        opened.append(connection.connection.driver_connection)
    servers.primary.forget_process()
    servers.replica.forget_process()
    assert not opened[0].closed
    with servers.primary.connect() as connection:
        assert connection.connection.driver_connection is not opened[0]
    with servers.session() as session:
        assert session.scalar(IN_RECOVERY)
    opened[0].close()


def test_a_child_process_resets_registered_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every object that still exists is notified, once."""
    monkeypatch.setattr(processes, "_known", weakref.WeakSet())
    told: list[str] = []

    class Thing:
        def forget_process(self) -> None:
            told.append("forget")

    thing = Thing()
    processes.forget_in_children(thing)
    processes._forget()  # noqa: SLF001  # what `os.fork` calls in the child
    del thing
    processes._forget()  # noqa: SLF001
    assert told == ["forget"]


def test_where_gevent_replaces_threads_no_engine_is_made_and_none_connects(
    shop: ReplicationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Including engines that were created before, as with `gunicorn --preload --worker-class gevent`."""
    monkeys = types.SimpleNamespace(is_module_patched=lambda name: name == "threading")
    with serving(shop) as servers:
        monkeypatch.setitem(sys.modules, "gevent.monkey", monkeys)
        for session in (servers.session(), RoutedSession(servers.primary)):
            with pytest.raises(ConfigurationError, match="gthread"), session:
                session.scalar(IN_RECOVERY)
    with pytest.raises(ConfigurationError, match="gthread"):
        create_primary_engine(shop)

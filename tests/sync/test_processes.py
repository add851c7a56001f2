"""Processes started after the application was used inherit nothing that is unsafe."""

import collections.abc
import contextlib
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading
import typing

import pytest
from modern_di import Container

from modern_di_replicas import Intent, ReplicationSettings, sync
from modern_di_replicas.cluster.background import background
from modern_di_replicas.cluster.topology import Topology
from modern_di_replicas.flask import Dependencies
from modern_di_replicas.sync import Monitor, PrimaryEngine, ReplicaEngine, RoutedSession, unit_of_work
from modern_di_replicas.sync.watch import Watch
from modern_di_replicas.testing import LocalCluster
from tests.sync.children import PIDS, fork_and_wait, use, use_until_killed
from tests.sync.conftest import settings_of, synchronous
from tests.waiting import until


def in_child(container: Container, pipe: typing.Any) -> None:  # a connection of multiprocessing
    topology = container.resolve(ReplicaEngine).topology
    was_watched = topology.watcher is not None
    seen = use(container)
    pipe.send((os.getpid(), was_watched, seen, topology.watcher is not None, topology.leader is not None))
    pipe.close()


def run_forked(target: collections.abc.Callable[..., None], container: Container) -> typing.Any:
    """Run a function in a forked process, and return the value it sends."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=target, args=(container, theirs))
    child.start()
    theirs.close()
    assert ours.poll(30), "the child hangs"
    result = ours.recv()
    child.join(30)
    assert child.exitcode == 0
    return result


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python warns about a fork while threads run
def test_a_forked_process_has_its_own_connections_and_monitor(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: a server may load and even use the application before it forks its workers."""
    settings = settings_of(replicated_cluster, replicas=[synchronous(replicated_cluster.replicas[0].url)])
    with Container(groups=[Dependencies], context={ReplicationSettings: settings}) as container:
        before = use(container)
        assert container.resolve(ReplicaEngine).topology.watcher is not None
        results = [run_forked(in_child, container) for _ in range(2)]
        for pid, was_watched, seen, is_watched, knows_primary in results:
            assert pid != os.getpid()
            assert not was_watched
            assert {standby for _, standby in seen} == {True, False}
            assert not {backend for backend, _ in seen} & {backend for backend, _ in before}
            assert is_watched
            assert knows_primary
        assert use(container) == before, "the parent's connections are as they were"


def write_in_child(container: Container, pipe: typing.Any) -> None:
    topology = container.resolve(ReplicaEngine).topology
    with unit_of_work(container) as unit:
        unit.resolve(RoutedSession).execute(PIDS)
    pipe.send(topology.watcher is not None)


def read_in_child(container: Container, pipe: typing.Any) -> None:
    replicas = container.resolve(ReplicaEngine)
    for engine in (replicas, replicas):
        with RoutedSession(engine, intent=Intent.read()) as session:
            session.execute(PIDS)
    pipe.send(replicas.topology.watcher is not None)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("target", [read_in_child, write_in_child])
def test_a_monitor_starts_in_a_forked_process_with_the_first_use(
    replicated_cluster: LocalCluster, target: collections.abc.Callable[..., None]
) -> None:
    """If the parent has started a monitor; once the parent has stopped it, no child starts one."""
    settings = settings_of(replicated_cluster)
    with Container(groups=[sync.Dependencies], context={ReplicationSettings: settings}) as container:
        with Monitor(container.resolve(ReplicaEngine)):
            assert run_forked(target, container)
        assert not run_forked(target, container)


@contextlib.contextmanager
def busy(topology: Topology) -> collections.abc.Iterator[None]:
    """Hold the locks in another thread that threads usually hold briefly."""
    held, ended = threading.Event(), threading.Event()

    def hold() -> None:
        pools: list[typing.Any] = [server.engine.pool for server in topology.servers]
        pools.append(typing.cast(typing.Any, topology.primary).pool)
        with contextlib.ExitStack() as stack:
            for lock in (*(pool._pool.mutex for pool in pools), *(pool.permits._lock for pool in pools)):  # noqa: SLF001  # only so they are held for sure
                stack.enter_context(lock)
            for server in topology.servers:
                stack.enter_context(server.health._lock)  # noqa: SLF001  # as above
            held.set()
            ended.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_may_be_forked_while_threads_hold_locks(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: those threads do not exist in the child, and would never release the locks there."""
    settings = settings_of(replicated_cluster, primary_fallback_limit=1)
    with Container(groups=[Dependencies], context={ReplicationSettings: settings}) as container:
        use(container)
        with busy(container.resolve(ReplicaEngine).topology):
            seen = run_forked(in_child, container)[2]
        assert {standby for _, standby in seen} == {True, False}


def test_a_forked_process_does_not_inherit_ejections(replicated_cluster: LocalCluster) -> None:
    """A server that was down for the parent may be up, and no monitor of the child would report it."""
    settings = settings_of(replicated_cluster, primary_fallback_limit=1)
    with Container(groups=[sync.Dependencies], context={ReplicationSettings: settings}) as container:
        replicas, primary = container.resolve(ReplicaEngine), container.resolve(PrimaryEngine)
        for server in replicas.topology.servers:
            server.health.declare_down()
        primary.declare_down(timeout=60)
        primary.fence(timeout=60)
        assert replicas.topology.choose_server() is None
        for engine in (replicas, primary):
            engine.forget_process()
        assert replicas.topology.choose_server() is not None
        assert primary.is_fenced, "a former primary stays one"


def test_a_forked_process_starts_another_monitor(replicated_cluster: LocalCluster) -> None:
    """In this process, for coverage: the monitor of the parent is left alone, and another one starts."""
    settings = settings_of(replicated_cluster, primary_fallback_limit=1)
    with Container(groups=[Dependencies], context={ReplicationSettings: settings}) as container:
        replicas, watch = container.resolve(ReplicaEngine), container.resolve(Watch)
        watch.start()
        monitor: typing.Any = watch._monitor  # noqa: SLF001  # to end it, as its process would
        former = monitor._monitor  # noqa: SLF001
        for thing in (container.resolve(PrimaryEngine), replicas, monitor):
            thing.forget_process()
        assert replicas.topology.watcher is None
        replicas.choose_for(Intent.read())
        assert replicas.topology.watcher not in (None, former)
        watch.start()
        background.run(former.__aexit__(None, None, None))
        watch.stop()
        monitor.forget_process()
        replicas.choose_for(Intent.read())
        assert replicas.topology.watcher is None, "it was stopped"


def test_a_script_may_fork_in_the_middle_of_a_unit_of_work(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: the end of a child closes no connection of its parent, and rolls nothing back on it."""
    replicated_cluster.primary.execute("CREATE TABLE written_before_a_fork (id int)")
    try:
        command = [sys.executable, "-m", "tests.sync.children"]
        urls = [synchronous(server.url) for server in replicated_cluster.servers[:2]]
        root = pathlib.Path(__file__).parents[2]
        ended = subprocess.run([*command, *urls], cwd=root, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603  # ours
        assert ended.returncode == 0, ended.stderr
    finally:
        replicated_cluster.primary.execute("DROP TABLE written_before_a_fork")


def connections(cluster: LocalCluster) -> list[int]:
    """Return each server's number of connections of the processes to be killed, including their monitors."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'killed%'"
    return [int(server.execute(count)) for server in cluster.servers]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("method", "target"),
    [("fork", use_until_killed), ("spawn", use_until_killed), ("fork", fork_and_wait)],
)
async def test_a_process_that_is_killed_leaves_no_connections(
    replicated_cluster: LocalCluster, method: str, target: collections.abc.Callable[..., None]
) -> None:
    """INVARIANT: even if a process that it forked lives on. Spawned or forked, that process had its own connections."""
    settings = settings_of(replicated_cluster, application_name="killed")
    context: typing.Any = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    child = context.Process(target=target, args=(settings, theirs, ours))
    with Container(groups=[Dependencies], context={ReplicationSettings: settings_of(replicated_cluster)}) as container:
        before = use(container)
        child.start()
    theirs.close()
    with ours:
        try:
            assert ours.poll(30), "the child hangs"
            seen = ours.recv()
            assert {standby for _, standby in seen} == {True, False}
            assert not seen & before
            assert all(count > 0 for count in connections(replicated_cluster))
        finally:
            os.kill(child.pid, signal.SIGKILL)
        await until(lambda: not any(connections(replicated_cluster)))
    child.join(30)

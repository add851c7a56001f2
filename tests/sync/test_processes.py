"""Processes that are forked after the application was used: nothing is inherited that must not be."""

import multiprocessing
import os
import typing

import pytest
from modern_di import Container
from sqlalchemy import text

from modern_di_replicas import Intent, ReplicationSettings
from modern_di_replicas.cluster.background import background
from modern_di_replicas.flask import Dependencies
from modern_di_replicas.sync import ReplicaEngine, RoutedSession, unit_of_work
from modern_di_replicas.sync.watch import Watch, stop_started
from modern_di_replicas.testing import LocalCluster
from tests.sync.conftest import settings_of, synchronous


PIDS = text("SELECT pg_backend_pid(), pg_is_in_recovery()")


def backends(container: Container) -> set[tuple[int, bool]]:
    """Return which server processes serve a read and a write."""
    found = set()
    for intent in (Intent.read(), Intent.write()):
        with unit_of_work(container, intent=intent) as unit:
            session = unit.resolve(RoutedSession)
            found.add(tuple(session.execute(PIDS).one()))
    return found


def in_child(container: Container, pipe: typing.Any) -> None:  # a connection of multiprocessing
    topology = container.resolve(ReplicaEngine).topology
    was_watched = topology.watcher is not None
    seen = backends(container)
    pipe.send((os.getpid(), was_watched, seen, topology.watcher is not None, topology.leader is not None))
    pipe.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python warns of a fork beside threads
def test_a_forked_process_has_connections_and_a_monitor_of_its_own(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: a server may load the application, and even use it, before it forks its workers."""
    settings = settings_of(replicated_cluster, replicas=[synchronous(replicated_cluster.replicas[0].url)])
    with Container(groups=[Dependencies], context={ReplicationSettings: settings}) as container:
        before = backends(container)
        assert container.resolve(ReplicaEngine).topology.watcher is not None
        context = multiprocessing.get_context("fork")
        results = []
        for _ in range(2):
            ours, theirs = context.Pipe()
            child = context.Process(target=in_child, args=(container, theirs))
            child.start()
            theirs.close()
            results.append(ours.recv())
            child.join(30)
            assert child.exitcode == 0
        for pid, was_watched, seen, is_watched, knows_primary in results:
            assert pid != os.getpid()
            assert not was_watched
            assert {standby for _, standby in seen} == {True, False}
            assert not {backend for backend, _ in seen} & {backend for backend, _ in before}
            assert is_watched
            assert knows_primary
        assert backends(container) == before, "the parent's connections are as they were"


def test_a_watch_starts_once_and_may_start_again(replicated_cluster: LocalCluster) -> None:
    """After it was stopped, as a test or a worker does."""
    settings = settings_of(replicated_cluster)
    with Container(groups=[Dependencies], context={ReplicationSettings: settings}) as container:
        watch, topology = container.resolve(Watch), container.resolve(ReplicaEngine).topology
        watch.stop()
        for _ in range(2):
            watch.start()
            first = topology.watcher
            watch.start()
            assert first is not None
            assert topology.watcher is first
            watch.stop()
            assert topology.watcher is None
        assert background.loop.is_running()


def test_at_the_end_of_a_process_the_monitors_are_stopped(
    replicated_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A forked worker closes no container; its monitor must not say that it has ended by mistake."""
    settings = settings_of(replicated_cluster)
    with Container(groups=[Dependencies], context={ReplicationSettings: settings}) as container:
        container.resolve(Watch).start()
        caplog.clear()
        stop_started()
        background.stop()
        assert container.resolve(ReplicaEngine).topology.watcher is None
        assert caplog.messages == []

"""The monitor that starts with the first unit of work of each process."""

import typing

from modern_di import Container
from sqlalchemy import create_engine

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.cluster.background import background
from modern_di_replicas.flask import Dependencies
from modern_di_replicas.sync import ReplicaEngine
from modern_di_replicas.sync.engines import create_primary_engine, create_replica_engine
from modern_di_replicas.sync.watch import Watch
from modern_di_replicas.testing import LocalCluster
from tests.sync.conftest import settings_of


def test_a_watch_starts_once_and_may_start_again(replicated_cluster: LocalCluster) -> None:
    """After it was stopped, by a test or a worker."""
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


def test_where_there_is_nothing_to_watch_no_monitor_starts() -> None:
    """Without replicas, or if a test has replaced them by another engine."""
    settings = ReplicationSettings(primary="postgresql+psycopg://app@db-1.invalid/shop")
    for replicas in (create_replica_engine(settings, create_primary_engine(settings)), create_engine("sqlite://")):
        watch = Watch(typing.cast(ReplicaEngine, replicas))
        watch.start()
        watch.stop()
        assert getattr(replicas, "snapshot", None) is None

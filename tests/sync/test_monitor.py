"""The monitor of a synchronous application."""

import gc
import threading
import time
import typing

import pytest
from modern_di import Container
from sqlalchemy import make_url, text

from modern_di_replicas import ConfigurationError, Replica, ReplicationSettings, sync
from modern_di_replicas.cluster.background import background
from modern_di_replicas.flask import Dependencies
from modern_di_replicas.sync import Monitor, ReplicaEngine
from modern_di_replicas.sync.monitor import stop_all
from modern_di_replicas.sync.watch import Watch
from modern_di_replicas.testing import LocalCluster
from tests.sync.conftest import serving, settings_of
from tests.sync.test_processes import read_in_child, run_forked
from tests.waiting import wait_for


def test_it_runs_while_its_block_does(replicated_cluster: LocalCluster) -> None:
    """Its first snapshot is published when the block starts."""
    with serving(replicated_cluster) as servers:
        with Monitor(servers.replica) as monitor:
            assert servers.replica.snapshot is not None
            assert servers.replica.snapshot.primary is not None
            monitor.start()  # it is running: the call has no effect
        assert servers.replica.snapshot is None
        monitor.stop()


def test_a_password_that_is_refused_is_an_error_at_the_start(replicated_cluster: LocalCluster) -> None:
    """In the thread that starts it."""
    settings = settings_of(replicated_cluster)
    wrong = settings.declared_primary.url.replace("postgres:", "postgres:not-", 1)
    with serving(replicated_cluster, primary=wrong) as servers, pytest.raises(ConfigurationError):
        Monitor(servers.replica).start()


def test_a_password_function_that_hangs_holds_up_its_server_alone(replicated_cluster: LocalCluster) -> None:
    """It may block on a secret store's socket; all servers are watched in one thread."""
    hanging, other = settings_of(replicated_cluster).servers
    released = threading.Event()

    def password() -> str | None:
        released.wait(60)
        return make_url(hanging.url).password

    without = make_url(hanging.url).set(password=None).render_as_string()
    replicas = [Replica(without, hanging.label, connect_args={"password": password}), other]
    settings: dict[str, typing.Any] = {"probe_interval": 0.1, "probe_timeout": 0.4}
    with serving(replicated_cluster, replicas=replicas, **settings) as servers:

        def serves(name: str) -> bool:
            with servers.session() as session:
                session.execute(text("SELECT 1"))
                return session.decision.server == name

        began = time.monotonic()
        with Monitor(servers.replica):
            assert time.monotonic() - began < 30
            wait_for(lambda: serves(other.label))
            assert not serves(hanging.label)
            released.set()
            wait_for(lambda: serves(hanging.label))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_monitor_runs_until_it_is_stopped(replicated_cluster: LocalCluster) -> None:
    """Even if only its start is called, as in a function that sets up a worker."""
    settings = settings_of(replicated_cluster)
    with Container(groups=[sync.Dependencies], context={ReplicationSettings: settings}) as container:
        topology = container.resolve(ReplicaEngine).topology
        Monitor(container.resolve(ReplicaEngine)).start()
        gc.collect()
        assert run_forked(read_in_child, container)
        stop_all()
        assert topology.watcher is None


def test_at_the_end_of_a_process_the_monitors_are_stopped(
    replicated_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A forked worker closes no container; its monitor must not log an unexpected end."""
    settings = settings_of(replicated_cluster)
    with Container(groups=[Dependencies], context={ReplicationSettings: settings}) as container:
        container.resolve(Watch).start()
        caplog.clear()
        stop_all()
        background.stop()
        assert container.resolve(ReplicaEngine).topology.watcher is None
        assert caplog.messages == []

"""Thirty threads notice nothing of servers that freeze, crash and move; `python -m tests.sync.load` takes longer."""

import contextlib
import threading
import typing

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.routing.decision import Cause
from modern_di_replicas.sync import Monitor
from modern_di_replicas.testing import LocalCluster
from tests.sync import load
from tests.sync.conftest import serving, settings_of
from tests.waiting import wait_for


SOON: dict[str, typing.Any] = {"probe_interval": 0.1, "probe_timeout": 0.4}
"""Settings that detect a fault sooner than the defaults."""


@pytest.mark.parametrize(
    "name", ["freeze", "promotion", *(pytest.param(name, marks=pytest.mark.slow) for name in ("crash", "stop", "lag"))]
)
def test_no_read_fails_and_none_takes_long(disposable_cluster: LocalCluster, name: str) -> None:
    """INVARIANT: a fault delays a read by its detection time at most, and writes recover."""
    load.create_stock(disposable_cluster)
    settings: ReplicationSettings = settings_of(disposable_cluster)
    report = load.run(load.FAULTS[name], disposable_cluster, settings, threads=load.THREADS, seconds=1.5)
    assert report.errors == []
    assert report.slowest <= report.bound
    assert report.reads > load.THREADS
    assert report.wrote_at_the_end


def test_a_thread_that_waits_for_a_frozen_replica_wakes_when_it_is_declared_down(disposable_shop: LocalCluster) -> None:
    """Its statement fails in the driver, and is run again on the primary."""
    with serving(disposable_shop, **SOON) as servers, Monitor(servers.replica), servers.session() as session:
        port = session.scalar(select(func.inet_server_port()))
        frozen = next(replica for replica in disposable_shop.replicas if replica.port == port)
        frozen.freeze()
        assert session.scalar(text("SELECT pg_is_in_recovery()")) is False  # it does not wait for the thaw
        assert session.decision.cause is Cause.REPLICA_FAILED
        frozen.thaw()


def test_a_frozen_primary_wakes_waiting_threads(disposable_shop: LocalCluster) -> None:
    """A transaction on it fails when the monitor declares it down; the next one starts when it answers again."""
    failed: list[Exception] = []
    with serving(disposable_shop, **SOON) as servers, Monitor(servers.replica):
        connection = servers.primary.connect()
        connection.execute(text("SELECT 1"))

        def write() -> None:
            try:
                connection.execute(text("UPDATE item SET amount = amount WHERE id = 1"))
            except Exception as error:  # noqa: BLE001
                failed.append(error)

        disposable_shop.primary.freeze()
        writer = threading.Thread(target=write)
        writer.start()
        writer.join(30)
        assert len(failed) == 1
        connection.close()
        disposable_shop.primary.thaw()

        def is_back() -> bool:
            with contextlib.suppress(DBAPIError, OSError), servers.primary.begin() as again:
                again.execute(text("UPDATE item SET amount = amount WHERE id = 1"))
                return True
            return False

        wait_for(is_back)

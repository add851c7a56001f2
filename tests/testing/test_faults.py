"""Faults by name; they are undone at the end of their block."""

import typing

import pytest

from modern_di_replicas import ConfigurationError
from modern_di_replicas.testing import LocalCluster, LocalServer, fault
from modern_di_replicas.testing.faults import FaultName


@pytest.fixture(scope="module")
def cluster() -> typing.Iterator[LocalCluster]:
    """Yield one cluster for all tests of this file: each undoes its faults."""
    with LocalCluster(replicas=1) as cluster:
        yield cluster


@pytest.fixture
def replica(cluster: LocalCluster) -> LocalServer:
    return cluster.replicas[0]


def is_broken(replica: LocalServer, name: FaultName) -> bool:
    if name == "freeze":
        return replica.is_frozen()
    if name == "lag":
        return replica.execute("SELECT pg_get_wal_replay_pause_state()") == "paused"
    return not replica.is_running()


def broken_for_a_test_that_fails(replica: LocalServer, name: FaultName) -> None:
    with fault(name, replica):
        assert is_broken(replica, name)
        raise RuntimeError


@pytest.mark.parametrize("name", typing.get_args(FaultName))
def test_a_fault_lasts_as_long_as_its_block(replica: LocalServer, name: FaultName) -> None:
    """Also if the test inside it fails."""
    with pytest.raises(RuntimeError):
        broken_for_a_test_that_fails(replica, name)
    assert replica.is_running()
    assert not is_broken(replica, name)


def test_a_fault_that_does_not_exist_is_refused(replica: LocalServer) -> None:
    """The error lists the existing ones."""
    with pytest.raises(ConfigurationError, match="freeze"), fault(typing.cast(FaultName, "flood"), replica):
        pytest.fail("nothing was provoked")


def test_a_primary_cannot_lag(cluster: LocalCluster) -> None:
    """The error says so, instead of PostgreSQL's message about a missing replay."""
    with pytest.raises(ConfigurationError, match="pass a replica: primary is not one"), fault("lag", cluster.primary):
        pytest.fail("nothing was provoked")

"""Clusters for tests: `pytest_plugins = ["modern_di_replicas.testing.fixtures"]` in the top-level conftest.py."""

import typing

import pytest

from modern_di_replicas.testing import LocalCluster


@pytest.fixture(scope="session")
def replicated_cluster() -> typing.Iterator[LocalCluster]:
    """Give a primary and two replicas to the whole session: leave the servers running and as they are."""
    with LocalCluster() as cluster:
        yield cluster


@pytest.fixture
def disposable_cluster() -> typing.Iterator[LocalCluster]:
    """Give a primary and two replicas to one test, which may break them."""
    with LocalCluster() as cluster:
        yield cluster

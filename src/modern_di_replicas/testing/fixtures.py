"""Fixtures for tests: `pytest_plugins = ["modern_di_replicas.testing.fixtures"]` in the top-level conftest.py."""

import asyncio
import typing

import pytest

from modern_di_replicas.settings import ReplicationSettings
from modern_di_replicas.testing import LocalCluster, RoutingLog, create_database, empty_database
from modern_di_replicas.testing import routing_log as record


@pytest.fixture(scope="session")
def replicated_cluster() -> typing.Iterator[LocalCluster]:
    """Provide a primary and two replicas for the whole session: tests must leave the servers running and unchanged."""
    with LocalCluster() as cluster:
        yield cluster


@pytest.fixture
def disposable_cluster() -> typing.Iterator[LocalCluster]:
    """Provide a primary and two replicas for one test, which may break them."""
    with LocalCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def shared_database(replicated_cluster: LocalCluster) -> ReplicationSettings:
    """Provide one database on the shared cluster: creating one takes a second, emptying it milliseconds."""
    return create_database(replicated_cluster, "test")


@pytest.fixture
def database(shared_database: ReplicationSettings) -> typing.Iterator[ReplicationSettings]:
    """Provide an empty database for one test: a primary, and the replicas `replica-1` and `replica-2`."""
    yield shared_database
    asyncio.run(empty_database(shared_database))


@pytest.fixture
def routing_log() -> typing.Iterator[RoutingLog]:
    """Provide the log of which server runs each statement of the test."""
    with record() as log:
        yield log

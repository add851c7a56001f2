"""States of a cluster's servers as the monitor records them, for the tests in this folder."""

import collections.abc
import contextlib
import logging
import typing

import pytest
from sqlalchemy import text

from modern_di_replicas import Monitor, RoutedSession
from modern_di_replicas.routing.snapshot import ServerState, Snapshot
from modern_di_replicas.testing import LocalCluster, LocalServer
from tests.session.conftest import Servers, serving


def name(server: LocalServer) -> str:
    return f"127.0.0.1:{server.port}"


def snapshot(servers: Servers) -> Snapshot:
    topology = servers.replica.topology
    assert topology.snapshot is not None
    return topology.snapshot


def state(servers: Servers, server: LocalServer) -> ServerState:
    return snapshot(servers).servers[name(server)]


async def write(servers: Servers) -> int:
    async with RoutedSession(servers.primary) as session:
        await session.execute(text("INSERT INTO written DEFAULT VALUES"))
        port = await session.scalar(text("SELECT inet_server_port()"))
        await session.commit()
        assert port is not None
        return int(port)


@contextlib.asynccontextmanager
async def watched(cluster: LocalCluster) -> collections.abc.AsyncIterator[Servers]:
    cluster.primary.execute("CREATE TABLE written (n serial PRIMARY KEY)")
    cluster.catch_up()
    settings: dict[str, typing.Any] = {"probe_interval": 0.1, "primary_pool_timeout": 5, "connect_timeout": 1.0}
    async with serving(cluster, **settings) as servers, Monitor(servers.replica):
        yield servers


def errors_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]

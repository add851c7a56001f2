"""The engine of one replica."""

import socket
import typing

import pytest

from modern_di_replicas import Replica, ReplicationSettings
from modern_di_replicas.cluster.engines.create import create_primary_engine, create_replica_engine
from modern_di_replicas.cluster.failures import Failure, classify
from modern_di_replicas.cluster.names import Names


async def test_a_replica_with_an_unknown_host_name_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """INVARIANT: without the note on the error it would count as the application's error, and the read would fail."""

    def look_up(*_: object, **__: object) -> typing.NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("modern_di_replicas.cluster.names.socket.getaddrinfo", look_up)
    monkeypatch.setattr("modern_di_replicas.cluster.waiting.names", Names())
    url = "postgresql+asyncpg://app@{}/shop"
    settings = ReplicationSettings(primary=url.format("db-1"), replicas=[Replica(url.format("db-2"), "gone")])
    engine = create_replica_engine(settings, create_primary_engine(settings)).engines["gone"]

    with pytest.raises(socket.gaierror) as caught:
        await engine.connect()

    assert classify(caught.value) is Failure.DOWN

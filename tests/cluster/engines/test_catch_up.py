"""The engine of a unit of work that requires a position no replica is known to have."""

import typing

import pytest

from modern_di_replicas import Cause, NoReplicaAvailable, ReplicaEngine
from modern_di_replicas.cluster.engines.catch_up import CatchUpEngine
from modern_di_replicas.cluster.freshness import FreshRead
from modern_di_replicas.observability import CaughtUp, Decided
from modern_di_replicas.routing.positions import Freshness
from tests.observability.recorder import Recorder
from tests.unconnected import engines


def catching_up(**options: typing.Any) -> tuple[CatchUpEngine, ReplicaEngine]:
    primary, replica = engines("db-2", **options)
    topology = replica.topology
    read = FreshRead(topology=topology, freshness=Freshness(max_age=1), group=None, affinity=None, wait=0, endpoint="e")
    candidate = next(server for server in topology.servers if server.name == "db-2")
    return CatchUpEngine(primary.sync_engine, candidate=candidate, read=read), replica


def test_until_a_replica_has_caught_up_it_is_the_primary() -> None:
    """The decision gives the reason."""
    engine, replica = catching_up()
    assert (engine.decision.server, engine.decision.cause) == ("primary", Cause.NOT_FRESH)
    assert "the last 1 s" in engine.decision.reason
    assert engine.candidate is replica.engines["db-2"]


async def test_if_none_catches_up_in_time_the_hooks_get_the_primary() -> None:
    """Without a monitor no server can be asked, so the primary is chosen at once."""
    recorder = Recorder()
    engine, _ = catching_up(hooks=[recorder])
    assert await engine.catch_up() is None
    (waited,), (decided,) = recorder.of(CaughtUp), recorder.of(Decided)
    assert (waited.server, waited.endpoint) == (None, "e")
    assert (decided.decision, decided.endpoint) == (engine.decision, "e")


async def test_where_the_primary_is_not_to_read_it_is_an_error() -> None:
    """At the first statement, or when the engine is used directly."""
    engine, _ = catching_up(primary_reads=False)
    with pytest.raises(NoReplicaAvailable):
        await engine.catch_up()
    with pytest.raises(NoReplicaAvailable):
        engine.connect()


async def test_a_host_name_of_several_servers_is_not_asked() -> None:
    """The answer of one server says nothing about the next connection, so the session asks on its own connection."""
    recorder = Recorder()
    engine, replica = catching_up(hooks=[recorder])
    replica.topology.positions.several.add("db-2")
    assert await engine.catch_up() is replica.engines["db-2"]
    assert [event.decision.server for event in recorder.of(Decided)] == ["db-2"]


def test_execution_options_go_along_to_the_replica() -> None:
    """INVARIANT: the options apply whichever server executes the statement."""
    engine, _ = catching_up()
    optioned = engine.execution_options(yield_per=5).execution_options(stream_results=True)
    for one in (optioned, optioned.candidate):
        assert dict(one.get_execution_options(), isolation_level=None) == {
            "yield_per": 5,
            "stream_results": True,
            "isolation_level": None,
        }
    assert optioned.read is engine.read

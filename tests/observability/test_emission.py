"""Every event is emitted when it happens, and hooks cannot break anything."""

import asyncio
import collections.abc
import logging
import signal
import sys
import threading
import typing

import pytest
from sqlalchemy import text

from modern_di_replicas import Cause, Intent, Monitor, choose_engine
from modern_di_replicas.cluster.engines.catch_up import CatchUpEngine
from modern_di_replicas.consistency.client import Client, current_token, request_of
from modern_di_replicas.observability import (
    CaughtUp,
    Decided,
    Ejected,
    Escalated,
    Event,
    PrimaryChanged,
    ReRun,
    Returned,
    SnapshotPublished,
)
from modern_di_replicas.observability.emission import Hooks
from modern_di_replicas.testing import LocalCluster
from tests.observability.recorder import Recorder
from tests.session.conftest import Servers, serving
from tests.sync.conftest import serving as in_threads
from tests.waiting import until


WHERE = text("SELECT inet_server_port()")


async def read(servers: Servers, statement: str = "SELECT inet_server_port()") -> int:
    async with servers.session() as session:
        return int((await session.execute(text(statement))).scalar_one())


def name(server: typing.Any) -> str:
    return f"127.0.0.1:{server.port}"


async def test_each_read_and_each_write_is_one_decision(shop_cluster: LocalCluster) -> None:
    """The event contains the decision and the endpoint of the unit of work."""
    recorder = Recorder()
    async with serving(shop_cluster, hooks=[recorder]) as servers:
        port = await read(servers)
        choose_engine(Intent.write(), servers.primary, servers.replica)
        choose_engine(Intent.read(), servers.primary, servers.replica)
    read_, write, other = recorder.of(Decided)
    assert (read_.decision.server, read_.decision.cause) == (f"127.0.0.1:{port}", Cause.REPLICA)
    assert (read_.endpoint, read_.is_read) == ("shop.show", True)
    assert (write.decision.cause, write.is_read) == (Cause.WRITE, False)
    assert other.is_read


async def test_a_write_in_a_read_is_an_escalation_and_not_a_rerun(shop_cluster: LocalCluster) -> None:
    """It was foreseen: nothing was sent to the replica."""
    recorder = Recorder()
    async with serving(shop_cluster, hooks=[recorder]) as servers, servers.session() as session:
        await session.execute(WHERE)
        replica = session.decision.server
        await session.execute(text("UPDATE item SET amount = amount WHERE id = 1"))
    (escalated,) = recorder.of(Escalated)
    assert (escalated.server, escalated.cause, escalated.endpoint) == (replica, Cause.WROTE, "shop.show")
    assert recorder.of(ReRun) == []


@pytest.mark.parametrize(("statement", "succeeded"), [("SELECT add_up()", True), ("SELECT spend_all()", False)])
async def test_a_refused_statement_is_a_rerun(shop_cluster: LocalCluster, statement: str, succeeded: bool) -> None:
    """The event says whether the primary succeeded, and how long it took."""
    recorder = Recorder()
    shop_cluster.primary.execute(
        "CREATE OR REPLACE FUNCTION add_up() RETURNS int LANGUAGE sql AS "
        "'UPDATE item SET amount = amount WHERE id = 1 RETURNING 1';"
        "CREATE OR REPLACE FUNCTION spend_all() RETURNS int LANGUAGE sql AS "
        "'UPDATE item SET amount = 1 / (amount - amount) WHERE id = 1 RETURNING 1'"
    )
    shop_cluster.catch_up()
    async with serving(shop_cluster, hooks=[recorder]) as servers, servers.session() as session:
        if succeeded:
            await session.execute(text(statement))
        else:
            with pytest.raises(Exception, match="division by zero"):
                await session.execute(text(statement))
    (rerun,) = recorder.of(ReRun)
    assert (rerun.cause, rerun.succeeded, rerun.endpoint) == (Cause.WROTE, succeeded, "shop.show")
    assert rerun.error
    assert rerun.seconds > 0
    assert shop_cluster.primary.execute("DROP FUNCTION add_up(); DROP FUNCTION spend_all()") == ""


async def test_a_crash_is_an_ejection_a_rerun_and_a_return(disposable_shop: LocalCluster) -> None:
    """Without a monitor the server returns at the end of its ejection, which the next choice detects."""
    recorder = Recorder()
    async with serving(disposable_shop, hooks=[recorder], replicas=[disposable_shop.replicas[0].url]) as servers:
        await read(servers)
        crashed = disposable_shop.replicas[0]
        await asyncio.to_thread(crashed.stop, "immediate")
        await read(servers)
        assert [(one.server, one.by) for one in recorder.of(Ejected)] == [(name(crashed), "session")]
        reruns = recorder.of(ReRun)
        assert {(one.server, one.cause) for one in reruns} == {(name(crashed), Cause.REPLICA_FAILED)}
        # First on new connections to the same server, as many as the driver had lost.
        *lost, last = [(one.again_on, one.succeeded) for one in reruns]
        assert set(lost) <= {(name(crashed), False)}
        assert last == ("primary", True)
        assert recorder.of(Returned) == []
        await asyncio.to_thread(crashed.start)

        async def is_back() -> bool:
            await read(servers)
            return bool(recorder.of(Returned))

        await until(is_back)
        assert [one.server for one in recorder.of(Returned)] == [name(crashed)]


async def test_the_monitor_tells_of_ejections_returns_and_changes_of_the_primary(
    disposable_shop: LocalCluster,
) -> None:
    """An operator's dashboard consists of these events and the snapshots."""
    recorder = Recorder()
    primary, first, second = disposable_shop.servers
    async with serving(disposable_shop, hooks=[recorder], probe_interval=0.05) as servers, Monitor(servers.replica):
        await until(lambda: bool(recorder.of(SnapshotPublished)))
        await asyncio.to_thread(second.freeze)
        await until(lambda: [(one.server, one.by) for one in recorder.of(Ejected)] == [(name(second), "probe")])
        await asyncio.to_thread(second.thaw)
        await until(lambda: [one.server for one in recorder.of(Returned)] == [name(second)])
        assert recorder.of(PrimaryChanged) == []
        await asyncio.to_thread(primary.stop)
        await asyncio.to_thread(first.promote)
        await until(lambda: bool(recorder.of(PrimaryChanged)))
        (changed,) = recorder.of(PrimaryChanged)
        assert (changed.former, changed.primary) == (name(primary), name(first))
        pools = recorder.of(SnapshotPublished)[-1].pools
        assert {(one.server, one.pool) for one in pools} == {
            *((name(server), "replica") for server in disposable_shop.servers),
            (name(first), "primary"),
        }
        assert all(one.in_use <= one.capacity for one in pools)
    assert recorder.of(SnapshotPublished)[-1] == SnapshotPublished(snapshot=None)


async def test_a_wait_for_a_replica_and_its_decision_are_reported_when_it_ends(disposable_shop: LocalCluster) -> None:
    """One decision per unit of work, whether a replica has caught up or the primary serves."""
    recorder = Recorder()
    (replica,) = disposable_shop.replicas[:1]
    async with (
        serving(disposable_shop, hooks=[recorder], replicas=[replica.url], catch_up_wait=5) as servers,
        Monitor(servers.replica),
    ):
        replica.pause_replay()
        with request_of(Client(is_request=True)):
            async with servers.primary.begin() as connection:
                await connection.execute(text("UPDATE item SET amount = amount WHERE id = 1"))
            assert current_token() is not None
            reading = asyncio.create_task(read(servers))
            await asyncio.sleep(0)
            replica.resume_replay()
            assert await reading == replica.port
        (caught_up,) = recorder.of(CaughtUp)
        assert caught_up.server == name(replica)
        assert caught_up.endpoint == "shop.show"
        assert [one.decision.cause for one in recorder.of(Decided)] == [Cause.REPLICA]


async def test_a_wait_that_times_out_is_one_decision_for_the_primary(disposable_shop: LocalCluster) -> None:
    """With a session, and with Core on the engine."""
    recorder = Recorder()
    (replica,) = disposable_shop.replicas[:1]
    async with (
        serving(disposable_shop, hooks=[recorder], replicas=[replica.url]) as servers,
        Monitor(servers.replica),
    ):
        replica.pause_replay()
        with request_of(Client(is_request=True)):
            async with servers.primary.begin() as connection:
                await connection.execute(text("UPDATE item SET amount = amount WHERE id = 1"))
            assert await read(servers) == disposable_shop.primary.port
            engine = servers.replica.choose()
            assert isinstance(engine, CatchUpEngine)
            async with engine.connect() as connection:
                assert await connection.scalar(WHERE) == disposable_shop.primary.port
        replica.resume_replay()
        assert [one.server for one in recorder.of(CaughtUp)] == [None]
        assert [one.decision.cause for one in recorder.of(Decided)] == [Cause.NOT_FRESH] * 2
        assert recorder.of(Escalated) == []


class Broken:
    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def on_event(self, event: Event, /) -> None:
        msg = f"no room for {type(event).__name__}"
        raise self._error(msg)


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_a_hook_that_fails_is_logged_once_and_harms_nothing(
    shop_cluster: LocalCluster, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    """Other hooks get every event, and reads succeed; also when a hook awaits a cancelled future."""
    recorder = Recorder()
    async with serving(shop_cluster, hooks=[Broken(error), recorder]) as servers:
        with caplog.at_level(logging.ERROR, "modern_di_replicas"):
            for _ in range(3):
                await read(servers)
    assert len(recorder.of(Decided)) == 3
    (record,) = caplog.records
    assert "The hook Broken failed at Decided" in record.message
    assert record.exc_info is not None


def test_a_hook_that_exits_ends_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise the monitor's thread would end, and the servers would no longer be watched."""
    outcomes: list[str] = []

    def emit() -> None:
        Hooks([Broken(SystemExit)]).emit(Returned(server="a"))
        outcomes.append("went on")

    thread = threading.Thread(target=emit)
    thread.start()
    thread.join()
    assert outcomes == ["went on"]
    assert "The hook Broken failed at Returned" in caplog.text


def test_a_signal_that_comes_while_a_hook_runs_ends_the_process(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: a SIGTERM handler usually calls `sys.exit()`, and interrupts any code of the main thread."""
    signals = [signal.SIGTERM]

    class Slow:
        def on_event(self, event: Event, /) -> None:
            if isinstance(event, Decided) and signals:
                signal.raise_signal(signals.pop())

    former = signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    try:
        with in_threads(replicated_cluster, hooks=[Slow()]) as servers:
            with pytest.raises(SystemExit), servers.session() as session:
                session.scalar(WHERE)
            with servers.session() as session:
                assert session.scalar(WHERE), "the connection is back, and the session as it was"
    finally:
        signal.signal(signal.SIGTERM, former)


def test_events_are_frozen_values_that_hooks_compare() -> None:
    """A hook may store them."""
    event = Returned(server="a")
    assert event == Returned(server="a")
    with pytest.raises(AttributeError):
        typing.cast(typing.Any, event).server = "b"


async def test_without_hooks_no_event_is_made(shop_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """INVARIANT: events are created only if there are hooks, so emission costs nothing without them."""

    def made(*_: object, **__: object) -> collections.abc.Iterator[None]:
        pytest.fail("an event was made")

    for module in ("cluster.engines.replica.Decided", "session.leaving.Escalated", "session.re_run.ReRun"):
        monkeypatch.setattr(f"modern_di_replicas.{module}", made)
    async with serving(shop_cluster) as servers:
        assert servers.replica.topology.hooks is None
        await read(servers)
        async with servers.session() as session:
            await session.execute(text("UPDATE item SET amount = amount WHERE id = 1"))

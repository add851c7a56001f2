"""The effect of a server's answer, or of a missing answer."""

import asyncio
import logging
import typing

import pytest
from sqlalchemy import make_url, text

from modern_di_replicas import ConfigurationError, Monitor
from modern_di_replicas.routing.snapshot import Role
from modern_di_replicas.testing import LocalCluster
from tests.cluster.monitoring.states import errors_of, name, snapshot, state, watched
from tests.pgbouncer import not_behind_a_pooler
from tests.session.conftest import serving
from tests.waiting import until


@not_behind_a_pooler("it has the passwords, of its clients and for its servers")
@pytest.mark.parametrize("what", ["password", "database", "user"])
async def test_a_wrong_password_or_database_of_the_primary_is_an_error_at_the_start(
    replicated_cluster: LocalCluster, what: str
) -> None:
    """INVARIANT: nothing works without the primary, and no retry corrects a setting."""
    primary, replica = (make_url(server.url) for server in replicated_cluster.servers[:2])
    if what == "password":
        primary = primary.set(password="s3cret-but-wrong")
    elif what == "user":
        primary = primary.set(username="nobody-here")
    else:
        primary, replica = primary.set(database="missing"), replica.set(database="missing")
    wrong, replicas = primary.render_as_string(hide_password=False), [replica.render_as_string(hide_password=False)]
    async with serving(replicated_cluster, primary=wrong, replicas=replicas) as servers:
        with pytest.raises(ConfigurationError) as caught:
            await Monitor(servers.replica).__aenter__()
        assert "127.0.0.1" in caught.value.field
        assert "s3cret" not in str(caught.value)


@not_behind_a_pooler("it has the passwords, of its clients and for its servers")
@pytest.mark.parametrize("what", ["password", "user", "pg_hba.conf"])
async def test_a_replica_that_refuses_the_application_does_not_stop_it(
    disposable_cluster: LocalCluster, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """INVARIANT: the configuration of one replica must not stop the application; it is logged once."""
    refusing, other = disposable_cluster.replicas
    url = make_url(refusing.url)
    if what == "pg_hba.conf":
        hba = refusing.data_directory / "pg_hba.conf"
        accepted = hba.read_text()
        hba.write_text("host postgres nobody 127.0.0.1/32 reject\nlocal all all trust\n")
        refusing.restart()
        expected = "no pg_hba.conf entry"
    else:
        url = url.set(password="s3cret-but-wrong") if what == "password" else url.set(username="nobody-here")
        expected = "password authentication failed"
    replicas = [url.render_as_string(hide_password=False), other.url]
    settings: dict[str, typing.Any] = {"replicas": replicas, "probe_interval": 0.05}
    async with serving(disposable_cluster, **settings) as servers, Monitor(servers.replica):
        for _ in range(4):
            async with servers.session() as session:
                assert await session.scalar(text("SELECT inet_server_port()")) == other.port
        refused = refusing.log().count("FATAL")
        await until(lambda: refusing.log().count("FATAL") >= refused + 3)  # it is retried, and not logged again
        (error,) = errors_of(caplog)
        assert name(refusing) in error
        assert expected in error
        assert "s3cret" not in error
        if what == "pg_hba.conf":
            hba.write_text(accepted)
            await asyncio.to_thread(refusing.restart)
            await until(lambda: state(servers, refusing).role is Role.STANDBY)
            assert caplog.messages.count(f"{name(refusing)} is back.") == 1


@not_behind_a_pooler("it has the passwords, of its clients and for its servers")
async def test_a_password_that_changes_while_it_runs_is_reported(
    disposable_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise the fallback to the primary would hide it."""
    async with watched(disposable_cluster) as servers:
        await asyncio.to_thread(disposable_cluster.primary.execute, "ALTER ROLE postgres PASSWORD 'another'")
        await asyncio.to_thread(disposable_cluster.primary.stop, "immediate")
        await asyncio.to_thread(disposable_cluster.primary.start)
        await until(lambda: any(record.levelno == logging.ERROR for record in caplog.records))
        assert not state(servers, disposable_cluster.primary).up
    assert 'password authentication failed for user "postgres")' in caplog.text
    assert "another" not in caplog.text


async def test_a_replica_that_is_down_does_not_stop_the_start(disposable_cluster: LocalCluster) -> None:
    """It is excluded, and used once it is available."""
    replica = disposable_cluster.replicas[0]
    await asyncio.to_thread(replica.stop)
    async with watched(disposable_cluster) as servers:
        assert not state(servers, replica).up
        await asyncio.to_thread(replica.start)
        await until(lambda: state(servers, replica).role is Role.STANDBY)


async def test_an_error_of_the_monitor_is_logged_and_it_continues(
    replicated_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """INVARIANT: states do not become stale silently: the error is logged, and the states become unknown."""
    settings: dict[str, typing.Any] = {"probe_interval": 0.05, "probe_timeout": 10.0}
    async with serving(replicated_cluster, **settings) as servers, Monitor(servers.replica) as monitor:

        def fail(*_: object, **__: object) -> typing.NoReturn:
            msg = "a defect of ours"
            raise RuntimeError(msg)

        known = snapshot(servers)
        with monkeypatch.context() as broken:
            broken.setattr("modern_di_replicas.cluster.monitoring.conclusions.assemble", fail)
            await until(lambda: len(errors_of(caplog)) >= 6)
            assert snapshot(servers) is known, "one error says nothing of the servers"
            broken.setattr(type(monitor), "_answer_time", 0.0)
            await until(lambda: snapshot(servers) is not known)
            assert {one.role for one in snapshot(servers).servers.values()} == {Role.UNKNOWN}
            async with servers.session() as session:
                assert await session.scalar(text("SELECT pg_is_in_recovery()")) is False
            await monitor.probe_now(name(replicated_cluster.primary))
        await until(lambda: state(servers, replicated_cluster.replicas[0]).role is Role.STANDBY)
    assert "a defect of ours" in caplog.text
    assert all(record.exc_info for record in caplog.records if record.levelno == logging.ERROR)

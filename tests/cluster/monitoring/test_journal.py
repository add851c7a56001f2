"""The monitor's log: the reason, one line per change, and one reminder per minute."""

import asyncio
import logging
import typing

import pytest
import sqlalchemy.exc
from sqlalchemy import make_url, text

from modern_di_replicas import Monitor
from modern_di_replicas.cluster.failures import reason_of
from modern_di_replicas.cluster.monitoring.journal import CHANGE_INTERVAL, REMINDER_INTERVAL, Journal
from modern_di_replicas.routing.snapshot import Role, ServerState, Snapshot
from modern_di_replicas.testing import LocalCluster
from tests.pgbouncer import not_behind_a_pooler
from tests.session.conftest import serving
from tests.waiting import until


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def said(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


def test_a_problem_is_logged_once_and_then_every_minute(caplog: pytest.LogCaptureFixture) -> None:
    """However often it is noted; once it is resolved, the next occurrence is logged again."""
    clock = Clock()
    journal = Journal(clock=clock)
    for _ in range(int(REMINDER_INTERVAL * 2)):
        journal.note_problem("a", "answer", "a is down: refused")
        clock.now += 1
    assert said(caplog) == ["a is down: refused.", "For 60 s: a is down: refused."]
    journal.note_resolved("a", "answer")
    journal.note_problem("a", "answer", "a is down: refused")
    assert said(caplog)[2:] == ["a is down: refused."]


def test_a_problem_that_alternates_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Refused, silent, refused: at most one line in ten seconds; an error after a warning is logged at once."""
    clock = Clock()
    journal = Journal(clock=clock)
    for number in range(int(CHANGE_INTERVAL * 2)):
        journal.note_problem("a", "answer", ("a is down: refused", "a is down: silent")[number % 2])
        clock.now += 1
    assert len(said(caplog)) == 2
    journal.note_problem("a", "answer", "a refuses the password", level=logging.ERROR)
    assert len(said(caplog)) == 3


def test_transient_states_of_a_failover_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Each standby is on the old timeline until it follows; this is not logged for the first minute."""
    clock = Clock()
    journal = Journal(clock=clock)
    left = Snapshot(servers={"a": ServerState(name="a", up=True, role=Role.LEFT_BEHIND)})
    for role in (Role.LEFT_BEHIND, Role.STANDBY, Role.UNKNOWN):
        journal.log_roles(Snapshot(servers={"a": ServerState(name="a", up=True, role=role)}))
    assert said(caplog) == []
    journal.log_roles(left)
    clock.now += REMINDER_INTERVAL
    journal.log_roles(left)
    assert len(said(caplog)) == 1
    assert "a is not used" in said(caplog)[0]


def test_an_old_primary_is_reported_when_it_lives_on(caplog: pytest.LogCaptureFixture) -> None:
    """INVARIANT: the last answer of a stopped server does not make it a second primary; a running one is reported."""
    clock = Clock()
    journal = Journal(settling=2.0, clock=clock)

    def note(role: Role) -> None:
        journal.log_roles(Snapshot(servers={"a": ServerState(name="a", up=True, role=role)}))

    for role in (Role.FENCED, Role.UNKNOWN, Role.UNKNOWN):  # in a switchover
        note(role)
        clock.now += 1.5
    note(Role.FENCED)
    assert said(caplog) == []
    for _ in range(4):
        clock.now += 1.0
        note(Role.FENCED)
    note(Role.UNKNOWN)  # a single missed answer does not cause another log line
    note(Role.FENCED)
    assert len(said(caplog)) == 1
    assert "a is not used: it runs as a primary" in said(caplog)[0]


def test_a_promoted_clone_is_not_called_a_former_primary(caplog: pytest.LogCaptureFixture) -> None:
    """Servers of other timelines work correctly, and none of them has to be stopped."""
    clone = Snapshot(servers={"a": ServerState(name="a", up=True, role=Role.FENCED)})
    Journal().log_roles(clone, not_promotable={"a"})
    assert "a is not used: it was promoted, and is declared with promotable=False" in said(caplog)[0]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "TimeoutError"),
        (ConnectionRefusedError(111, "Connect call failed ('10.0.0.9', 5432)"), "10.0.0.9"),
        (FileNotFoundError(2, "No such file", "/etc/ssl/missing-ca.pem"), "/etc/ssl/missing-ca.pem"),
        (ValueError("first line\nDETAIL: second line"), "first line"),
        (sqlalchemy.exc.DBAPIError("SELECT :secret", {"secret": 1}, OSError("no route to host")), "no route to host"),
    ],
)
def test_the_reason_is_the_message_of_the_system(error: Exception, reason: str) -> None:
    """Neither a class name nor the statement with its parameters."""
    assert reason in reason_of(error)
    assert "secret" not in reason_of(error)
    assert "second" not in reason_of(error)


def test_the_reason_of_a_wrapped_error_is_the_innermost() -> None:
    """The dialect wraps the driver's error, and SQLAlchemy wraps the dialect's error."""
    dialect = RuntimeError("<class 'Inner'>: it broke")
    dialect.__cause__ = ValueError("it broke")
    assert reason_of(sqlalchemy.exc.DBAPIError("SELECT 1", {}, dialect)) == "it broke"


async def test_the_start_logs_the_servers(replicated_cluster: LocalCluster, caplog: pytest.LogCaptureFixture) -> None:
    """One line with the role, version and lag of each server."""
    caplog.set_level(logging.INFO, "modern_di_replicas")
    async with serving(replicated_cluster) as servers, Monitor(servers.replica):
        pass
    lines = [line for line in said(caplog, logging.INFO) if "servers at the start" in line]
    assert len(lines) == 1
    for server in replicated_cluster.servers:
        assert f"127.0.0.1:{server.port} is" in lines[0]
    assert "is primary, PostgreSQL 1" in lines[0]
    assert "s behind" in lines[0]


@not_behind_a_pooler("the log says how replicas are read", driver="asyncpg")
async def test_the_start_logs_deviations_from_the_declaration(
    disposable_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A declared primary that is a standby, with its primary declared or not, and a replica that is the primary."""
    caplog.set_level(logging.INFO, "modern_di_replicas")
    primary, first, second = disposable_cluster.servers
    alias = make_url(primary.url).set(host="localhost").render_as_string(hide_password=False)
    cases: list[tuple[dict[str, typing.Any], str, str]] = [
        ({"primary": first.url, "replicas": [second.url]}, f"127.0.0.1:{first.port}", "its primary is not in the"),
        ({"primary": first.url, "replicas": [primary.url]}, f"the primary is 127.0.0.1:{primary.port}", "Correct the"),
        ({"replicas": [alias, first.url]}, f"localhost:{primary.port}", "is the primary itself, by another name"),
    ]
    for settings, who, what in cases:
        caplog.clear()
        async with serving(disposable_cluster, **settings) as servers, Monitor(servers.replica):
            assert any(who in line and what in line for line in said(caplog)), said(caplog)
    caplog.clear()
    await asyncio.to_thread(second.stop)
    await asyncio.to_thread(disposable_cluster.primary.execute, "SELECT pg_switch_wal()")
    async with serving(disposable_cluster) as servers, Monitor(servers.replica):
        lines = said(caplog, logging.INFO)
        assert any(f"{second.port} is down: " in line and "Connect" in line for line in lines), lines
        assert any(f"{second.port} does not answer" in line for line in lines), lines


@not_behind_a_pooler("the connection to the server is the pooler's")
async def test_a_server_without_a_connection_for_the_monitor_is_not_down(
    disposable_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """INVARIANT: an application that uses all connections must not lose them because the monitor cannot connect."""
    primary, replica, _ = disposable_cluster.servers
    primary.execute("CREATE ROLE few LOGIN PASSWORD 'few' CONNECTION LIMIT 1")
    disposable_cluster.catch_up()
    urls = [
        make_url(server.url).set(username="few", password="few").render_as_string(hide_password=False)
        for server in (primary, replica)
    ]
    settings: dict[str, typing.Any] = {"primary": urls[0], "replicas": urls[1:], "probe_interval": 0.1}
    async with serving(disposable_cluster, **settings) as servers, Monitor(servers.replica):
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'few'"
        taken = []
        for server, engine in (
            (primary, servers.primary),
            (replica, servers.replica.engines[f"127.0.0.1:{replica.port}"]),
        ):

            async def is_taken(server: typing.Any = server, engine: typing.Any = engine) -> bool:
                await asyncio.to_thread(server.execute, end)
                try:
                    taken.append(await engine.connect())
                except (sqlalchemy.exc.DBAPIError, OSError):
                    return False
                return True

            await until(is_taken)
        await until(lambda: sum("no connection left" in line for line in said(caplog)) == 2)
        snapshot = servers.replica.snapshot
        assert snapshot is not None
        assert snapshot.primary == f"127.0.0.1:{primary.port}"
        assert not snapshot.servers[f"127.0.0.1:{replica.port}"].up
        for connection in taken:
            assert await connection.scalar(text("SELECT 1")) == 1, "it was ended"
            await connection.close()
        await servers.primary.dispose()
        await servers.replica.dispose()

        def is_up() -> bool:
            snapshot = servers.replica.snapshot
            return snapshot is not None and snapshot.servers[f"127.0.0.1:{replica.port}"].up

        await until(is_up)

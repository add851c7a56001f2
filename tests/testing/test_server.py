import pathlib
import signal
import socket
import threading
import time
import typing

import psutil
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from modern_di_replicas.errors import ClusterStateError, ServerFailedError
from modern_di_replicas.testing import LocalCluster, LocalServer, operations, processes, server
from modern_di_replicas.testing.programs import Programs
from modern_di_replicas.testing.waiting import wait_until
from tests.driver import DRIVER


def rows(of: LocalServer, table: str) -> str:
    return of.execute(f"SELECT string_agg(number::text, ',' ORDER BY number) FROM {table}")  # noqa: S608 - our own name


async def test_the_addresses_work_and_the_password_is_needed(replicated_cluster: LocalCluster) -> None:
    """The URL is for SQLAlchemy, and other users of the machine are refused."""
    replica = replicated_cluster.replicas[0]
    engine = create_async_engine(replica.url)
    async with engine.connect() as connection:
        assert await connection.scalar(sa.text("SELECT current_setting('cluster_name')")) == "replica-1"
    await engine.dispose()
    assert replica.dsn == replica.url.replace(f"+{DRIVER}", "")
    assert repr(replica) == f"LocalServer(name='replica-1', port={replica.port})"

    wrong = create_async_engine(sa.make_url(replica.url).set(password="wrong"))
    with pytest.raises(Exception, match="password authentication failed"):
        await wrong.connect()


def test_the_password_is_on_no_command_line(replicated_cluster: LocalCluster) -> None:
    """All users of the machine can read command lines."""
    password = sa.make_url(replicated_cluster.primary.url).password
    assert password
    for one in replicated_cluster.servers:
        process = processes.find_postmaster(one.data_directory)
        assert process is not None
        assert password not in " ".join(process.cmdline())


def test_refused_sql_quotes_the_error_of_postgresql(replicated_cluster: LocalCluster) -> None:
    """A replica refuses to write."""
    with pytest.raises(ServerFailedError, match="read-only transaction") as caught:
        replicated_cluster.replicas[0].execute("CREATE TABLE refused ()")

    assert caught.value.server == "replica-1"
    assert "read-only transaction" in replicated_cluster.replicas[0].log()


def test_the_replay_stops_and_continues(disposable_cluster: LocalCluster) -> None:
    """A paused replica returns the old rows however long one waits, and catching up does not wait for it."""
    primary, (lagging, other) = disposable_cluster.primary, disposable_cluster.replicas
    primary.execute("CREATE TABLE t AS SELECT 1 AS number")
    disposable_cluster.catch_up()
    lagging.pause_replay()
    lagging.pause_replay()

    primary.execute("INSERT INTO t VALUES (2)")
    disposable_cluster.catch_up()

    assert (rows(lagging, "t"), rows(other, "t")) == ("1", "1,2")
    lagging.resume_replay()
    lagging.resume_replay()
    disposable_cluster.catch_up()
    assert rows(lagging, "t") == "1,2"


def test_a_replay_that_cancels_the_statement_which_resumed_it_has_been_resumed(
    disposable_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pending changes may conflict with any statement on the replica, including this one."""
    primary, lagging = disposable_cluster.primary, disposable_cluster.replicas[0]
    lagging.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0; SELECT pg_reload_conf()")
    primary.execute("CREATE TABLE t AS SELECT 1 AS number")
    disposable_cluster.catch_up()
    lagging.pause_replay()
    primary.execute("DELETE FROM t; VACUUM t")
    run = Programs.run

    def run_slowly(programs: Programs, *arguments: str, stdin: str = "", **options: typing.Any) -> str:
        stdin = stdin.replace("pg_wal_replay_resume()", "pg_wal_replay_resume(), pg_sleep(20)")
        return run(programs, *arguments, stdin=stdin, **options)

    monkeypatch.setattr(Programs, "run", run_slowly)
    lagging.resume_replay()
    assert "conflict with recovery" in lagging.log()
    monkeypatch.undo()
    disposable_cluster.catch_up()
    assert rows(lagging, "t") == ""


def test_a_replay_that_cannot_be_resumed_is_an_error(replicated_cluster: LocalCluster) -> None:
    """A primary has no replay."""
    with pytest.raises(ServerFailedError, match="recovery is not in progress"):
        replicated_cluster.primary.resume_replay()


def test_a_frozen_server_gives_no_answer_until_it_thaws(disposable_cluster: LocalCluster) -> None:
    """It accepts connections without an answer; none of its processes runs."""
    frozen = disposable_cluster.replicas[0]
    frozen.freeze()
    frozen.freeze()
    postmaster = processes.find_postmaster(frozen.data_directory)
    assert postmaster is not None

    assert frozen.is_running()
    assert frozen.is_frozen()
    statuses = {process.status() for process in [postmaster, *postmaster.children(recursive=True)]}
    # One that was about to end stays a zombie: its postmaster is stopped as well.
    assert statuses - {psutil.STATUS_ZOMBIE} == {psutil.STATUS_STOPPED}
    with pytest.raises(ServerFailedError, match=r"within 0.3 s"):
        frozen.execute("SELECT 1", timeout=0.3)
    disposable_cluster.primary.execute("CREATE TABLE t AS SELECT 1 AS number")
    disposable_cluster.catch_up()

    frozen.thaw()
    frozen.thaw()
    assert not frozen.is_frozen()
    disposable_cluster.catch_up()
    assert rows(frozen, "t") == "1"

    for mode in ("fast", "immediate"):
        frozen.freeze()
        frozen.stop(mode)
        assert not frozen.is_running()
        frozen.start()
    frozen.stop("smart")
    frozen.stop()
    frozen.thaw()
    assert not frozen.is_frozen()
    with pytest.raises(ServerFailedError, match="not running"):
        frozen.freeze()


def test_a_failover_and_the_way_back(disposable_cluster: LocalCluster) -> None:
    """The primary crashes with a commit that no standby received, a replica is promoted, and both others follow it."""
    primary, (successor, other) = disposable_cluster.primary, disposable_cluster.replicas
    primary.execute("CREATE TABLE t AS SELECT 1 AS number")
    disposable_cluster.catch_up()
    for replica in disposable_cluster.replicas:
        replica.stop()
    primary.execute("INSERT INTO t VALUES (2)")
    primary.stop("immediate")
    with pytest.raises(ServerFailedError, match="No primary is running"):
        disposable_cluster.catch_up()
    successor.start()
    other.start()

    successor.promote()
    successor.promote()
    successor.execute("INSERT INTO t VALUES (3)")
    primary.follow(successor)
    other.follow(successor)
    disposable_cluster.catch_up()

    assert [rows(one, "t") for one in disposable_cluster.servers] == ["1,3"] * 3
    assert primary.execute("SELECT pg_is_in_recovery()") == "t"
    (primary.data_directory / "global" / "pg_control").unlink()
    successor.execute("INSERT INTO t VALUES (4)")
    primary.stop("immediate")
    primary.follow(successor)
    disposable_cluster.catch_up()
    assert rows(primary, "t") == "1,3,4"
    with pytest.raises(ServerFailedError, match="follow itself"):
        primary.follow(primary)


def test_a_standby_that_has_more_than_the_new_primary_follows_it(disposable_cluster: LocalCluster) -> None:
    """INVARIANT: pg_rewind finds no difference if it has received more without replaying it before its stop."""
    primary, (successor, other) = disposable_cluster.primary, disposable_cluster.replicas
    primary.execute("CREATE TABLE t AS SELECT 1 AS number")
    disposable_cluster.catch_up()
    successor.promote()
    other.pause_replay()
    primary.stop()

    other.follow(successor)

    successor.execute("INSERT INTO t VALUES (2)")
    disposable_cluster.catch_up()
    assert rows(other, "t") == "1,2"


def test_a_restarted_primary_is_followed_again(disposable_cluster: LocalCluster) -> None:
    """The replicas need no command, and the port stays the same."""
    primary = disposable_cluster.primary
    url = primary.url
    primary.restart()
    primary.start()

    primary.execute("CREATE TABLE t AS SELECT 1 AS number")
    disposable_cluster.catch_up()

    assert primary.url == url
    assert rows(disposable_cluster.replicas[1], "t") == "1"


def test_a_taken_port_is_left_to_its_owner(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port can be taken after the check: a new server uses another one, an existing one raises an error."""
    with socket.socket() as listener:
        listener.bind((server.HOST, 0))
        listener.listen()
        taken: int = listener.getsockname()[1]
        ports = [taken]
        monkeypatch.setattr(server, "free_port", lambda find=server.free_port: ports.pop() if ports else find())
        with LocalCluster(0, folder=folder) as cluster:
            assert cluster.primary.port != taken
            cluster.primary.stop()
            monkeypatch.setattr(cluster.primary, "port", taken)
            with pytest.raises(ServerFailedError, match="could not bind"):
                cluster.primary.start()
            assert not cluster.primary.is_running()
            monkeypatch.setattr(server, "free_port", lambda: taken)
            monkeypatch.setattr(server, "PORT_ATTEMPTS", 2)
            with pytest.raises(ServerFailedError, match="could not bind"):
                cluster.primary.start_first_time()


def test_a_timeout_is_an_error(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wait has a timeout, and a server that does not start in time is stopped."""
    with LocalCluster(0, folder=folder) as cluster:
        primary = cluster.primary
        monkeypatch.setattr(operations, "STREAMING_SECONDS", 0.0)
        with pytest.raises(ServerFailedError, match=r"stream to nobody within 0 s"):
            primary.wait_for_streaming(["nobody"])
        primary.stop()
        monkeypatch.setattr(server, "START_SECONDS", 0.0)
        with pytest.raises(ServerFailedError, match="failed to start"):
            primary.start()
        assert not primary.is_running()


def test_a_server_that_ignores_its_end_is_killed(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell's background job ignores SIGQUIT, and so do its children unless they change it."""
    with LocalCluster(0, folder=folder) as cluster:
        cluster.primary.stop()
        monkeypatch.setattr(server, "START_SECONDS", 0.0)
        monkeypatch.setattr(server, "SIGNAL_SECONDS", 0.1)
        before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        try:
            with pytest.raises(ServerFailedError, match="failed to start"):
                cluster.primary.start()
        finally:
            signal.signal(signal.SIGQUIT, before)
        assert not cluster.primary.is_running()


def test_a_server_that_dies_during_a_freeze_or_thaw_is_handled(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operating system may end a process between two checks."""

    class Vanished:
        def __getattr__(self, name: str) -> object:
            raise psutil.NoSuchProcess(1)

    with LocalCluster(0, folder=folder) as cluster:
        with monkeypatch.context() as patch:
            patch.setattr(server, "find_postmaster", lambda _: Vanished())
            cluster.primary.thaw()
            assert not cluster.primary.is_frozen()
        assert not server._suspend_what_runs(Vanished())  # type: ignore[arg-type]  # noqa: SLF001 - a stand-in
        assert cluster.primary.execute("SELECT 1") == "1"


def test_a_killed_server_can_be_started_again(folder: pathlib.Path) -> None:
    """`kill -9` leaves a pid file, shared memory and orphaned processes, which end by themselves."""
    with LocalCluster(0, folder=folder) as cluster:
        process = processes.find_postmaster(cluster.primary.data_directory)
        assert process is not None
        orphans = process.children(recursive=True)
        process.send_signal(signal.SIGKILL)
        assert wait_until(lambda: not any(orphan.is_running() for orphan in orphans), timeout=10.0)
        assert not cluster.primary.is_running()

        cluster.primary.start()

        assert cluster.primary.execute("SELECT 1") == "1"


def test_a_server_of_a_stopped_cluster_says_so(folder: pathlib.Path) -> None:
    """A server that is used after its cluster raises an error with the reason."""
    with LocalCluster(0, folder=folder) as cluster:
        primary = cluster.primary

    assert not primary.is_running()
    primary.stop()
    for use in (primary.start, primary.log, primary.restart, lambda: primary.execute("SELECT 1")):
        with pytest.raises(ClusterStateError):
            use()


def test_threads_may_share_a_server(folder: pathlib.Path) -> None:
    """Two concurrent starts have the effect of one."""
    with LocalCluster(0, folder=folder) as cluster:
        cluster.primary.stop()
        threads = [threading.Thread(target=cluster.primary.start) for _ in range(4)]
        begin = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert cluster.primary.execute("SELECT 1") == "1"
        assert cluster.primary.log().count("starting PostgreSQL") == 2
        assert time.monotonic() - begin < 30.0

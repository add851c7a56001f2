import asyncio
import gc
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from modern_di_replicas.errors import (
    BinaryNotFoundError,
    ClusterStateError,
    ConfigurationError,
    FolderNotUsableError,
    ServerFailedError,
)
from modern_di_replicas.testing import LocalCluster, binaries, shared_memory
from modern_di_replicas.testing import cluster as module
from modern_di_replicas.testing.accounts import Account
from modern_di_replicas.testing.processes import programs_below, read_pid_file
from modern_di_replicas.testing.programs import Programs


OWNER = """
import sys
from modern_di_replicas.testing import LocalCluster

cluster = LocalCluster(int(sys.argv[2]), folder=sys.argv[1], progress=lambda step: print(step, flush=True))
cluster.__enter__()
print(cluster.primary.data_directory.parent, flush=True)
"""
FREEZE_AND_WAIT = "cluster.servers[-1].freeze(); print('frozen', flush=True); sys.stdin.read()"
DROP_ROOT = """
import asyncio, concurrent.futures.thread, encodings.idna, os, sys
from modern_di_replicas.testing import LocalCluster

os.setgroups([])
os.setgid(65534)
os.setuid(65534)
with LocalCluster(1, folder=sys.argv[1]) as cluster:
    print(cluster.replicas[0].execute("SELECT pg_is_in_recovery()"))
"""


def start_owner(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def read_until(owner: subprocess.Popen[str], line: str) -> list[str]:
    assert owner.stdout is not None
    lines: list[str] = []
    for printed in owner.stdout:
        lines.append(printed.strip())
        if lines[-1] == line:
            return lines
    raise AssertionError(owner.communicate())


def segments_below(folder: pathlib.Path) -> set[int]:
    records = [read_pid_file(path.parent) for path in folder.glob("*/*/postmaster.pid")]
    return {record.segment[1] for record in records if record is not None and record.segment is not None}


def existing_segments() -> set[int]:
    if not shared_memory.TABLE.exists():
        return set()
    return {int(line.split()[1]) for line in shared_memory.TABLE.read_text().splitlines()[1:]}


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_clean(folder: pathlib.Path) -> bool:
    return not programs_below(folder) and list(folder.iterdir()) == []


def test_the_remains_of_a_killed_owner_are_removed_by_the_next_cluster(folder: pathlib.Path) -> None:
    """INVARIANT: processes (also frozen ones), folder and shared memory of the dead owner are removed, others stay."""
    with LocalCluster(0, folder=folder) as neighbour:
        neighbours_segments = segments_below(folder)
        owner = start_owner(OWNER + FREEZE_AND_WAIT, str(folder), "1")
        left = pathlib.Path(read_until(owner, "frozen")[-2])
        owner.kill()
        owner.communicate()
        segments = segments_below(folder) - neighbours_segments
        processes = programs_below(left)
        assert len(processes) > 4
        assert len(segments) == 2

        with LocalCluster(0, folder=folder) as cluster:
            assert not left.exists()
            assert not any(is_alive(process) for process in processes)
            assert not segments & existing_segments()
            assert cluster.primary.execute("SELECT 1") == "1"
            assert neighbour.primary.execute("SELECT 1") == "1"

    assert is_clean(folder)


def test_shared_memory_of_a_killed_postmaster_goes(folder: pathlib.Path) -> None:
    """A killed postmaster cannot remove it."""
    with LocalCluster(0, folder=folder) as cluster:
        segments = segments_below(folder)
        record = read_pid_file(cluster.primary.data_directory)
        assert record is not None
        psutil.Process(record.pid).kill()

    assert segments
    assert not segments & existing_segments()
    assert is_clean(folder)


@pytest.mark.parametrize("step", ["primary: initdb", "replica-1: base backup"])
def test_an_interrupt_from_the_terminal_leaves_nothing(folder: pathlib.Path, step: str) -> None:
    """Ctrl-C is sent to the whole foreground group, during any step."""
    owner = start_owner(OWNER, str(folder), "1")
    read_until(owner, step)
    os.killpg(owner.pid, signal.SIGINT)
    errors = owner.communicate()[1]

    assert owner.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert is_clean(folder)


def test_the_end_of_the_interpreter_leaves_nothing(folder: pathlib.Path) -> None:
    """A program may exit without leaving the block."""
    owner = start_owner(OWNER, str(folder), "0")
    _, errors = owner.communicate()

    assert (owner.returncode, errors) == (0, "")
    assert is_clean(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="without root, every test runs like this one")
def test_it_works_without_root(folder: pathlib.Path) -> None:
    """No other account is needed then."""
    folder.chmod(0o777)
    owner = start_owner(DROP_ROOT, str(folder))
    output, errors = owner.communicate()

    assert (output, errors) == ("t\n", "")
    assert is_clean(folder)


def test_an_exception_in_the_block_leaves_nothing(folder: pathlib.Path) -> None:
    """A failing test must not leave a server running."""
    message = "from the block"
    with pytest.raises(RuntimeError, match=message), LocalCluster(0, folder=folder):
        raise RuntimeError(message)

    assert is_clean(folder)


@pytest.mark.parametrize(("error", "at"), [(KeyboardInterrupt, "replica-2: start"), (RuntimeError, "primary: start")])
def test_an_exception_during_the_start_leaves_nothing(
    folder: pathlib.Path, error: type[BaseException], at: str
) -> None:
    """A partly started cluster is removed, including the servers started in other threads."""

    def fail(step: str) -> None:
        if step == at:
            raise error

    with pytest.raises(error), LocalCluster(2, folder=folder, progress=fail):
        raise AssertionError

    assert is_clean(folder)


def test_a_forgotten_cluster_is_removed(folder: pathlib.Path) -> None:
    """Its block can no longer be left."""
    LocalCluster(0, folder=folder).__enter__()
    gc.collect()

    assert is_clean(folder)


def test_a_forked_child_does_not_end_the_cluster(folder: pathlib.Path) -> None:
    """It inherits the finalizer, and runs it when it exits."""
    with LocalCluster(0, folder=folder) as cluster:
        assert cluster._programs is not None  # noqa: SLF001 - what a finalizer holds
        module._clean_up(cluster._programs, os.getpid() + 1)  # noqa: SLF001 - as in a child

        assert cluster.primary.execute("SELECT 1") == "1"


async def test_a_cancelled_start_leaves_nothing(folder: pathlib.Path) -> None:
    """The start ends at once, not after it has succeeded."""
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()
    steps: list[str] = []

    def note(step: str) -> None:
        steps.append(step)
        loop.call_soon_threadsafe(reached.set)

    async def use() -> None:
        async with LocalCluster(1, folder=folder, progress=note):
            raise AssertionError

    task = asyncio.create_task(use())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert steps[-1] != "replicas: streaming"
    assert is_clean(folder)


async def test_a_cancellation_after_the_last_step_leaves_nothing(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster is ready, but its caller is gone."""
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(LocalCluster, "_abort", lambda _: None)

    def note(_: str) -> None:
        loop.call_soon_threadsafe(reached.set)

    async def use() -> None:
        async with LocalCluster(0, folder=folder, progress=note):
            raise AssertionError

    task = asyncio.create_task(use())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert is_clean(folder)


async def test_a_cancelled_end_is_still_an_end(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cancellation is raised once everything is removed; the event loop is free meanwhile."""
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()
    stop = LocalCluster._stop  # noqa: SLF001 - to see when it begins

    def note(cluster: LocalCluster) -> None:
        loop.call_soon_threadsafe(reached.set)
        stop(cluster)

    monkeypatch.setattr(LocalCluster, "_stop", note)

    async def use() -> None:
        async with LocalCluster(0, folder=folder) as cluster:
            assert await asyncio.to_thread(cluster.primary.execute, "SELECT 1") == "1"

    task = asyncio.create_task(use())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert is_clean(folder)


def test_cancelling_before_the_first_step_changes_nothing() -> None:
    """No program has been started yet."""
    LocalCluster()._abort()  # noqa: SLF001 - the race cannot be met from outside


def test_a_cluster_is_used_inside_its_block_and_once(folder: pathlib.Path) -> None:
    """Any other use is an error that names the cluster's state."""
    cluster = LocalCluster(0, folder=folder)
    with pytest.raises(ClusterStateError, match="not started"):
        _ = cluster.primary
    with cluster:
        assert cluster.replicas == ()
        cluster.catch_up()
    with pytest.raises(ClusterStateError, match="stopped"):
        _ = cluster.servers
    with pytest.raises(ClusterStateError, match="stopped"):
        cluster.catch_up()
    with pytest.raises(ClusterStateError, match="start it again"):
        cluster.__enter__()


@pytest.mark.parametrize(("replicas", "synchronous"), [(-1, False), (0, True)])
def test_a_number_of_replicas_that_makes_no_sense_is_refused(replicas: int, synchronous: bool) -> None:
    """A synchronous commit without replicas would wait forever."""
    with pytest.raises(ConfigurationError) as caught:
        LocalCluster(replicas, synchronous=synchronous)

    assert caught.value.field == "replicas"


def test_a_synchronous_commit_waits_for_a_replica(folder: pathlib.Path) -> None:
    """With its only replica gone, it waits; and the user's own settings apply to every server."""
    settings = {"work_mem": "5MB", "application_name": r"it's a \ name"}
    with LocalCluster(1, folder=folder, synchronous=True, settings=settings) as cluster:
        cluster.primary.execute("CREATE TABLE t ()")
        cluster.replicas[0].stop()
        with pytest.raises(ServerFailedError, match=r"within 0.5 s"):
            cluster.primary.execute("INSERT INTO t DEFAULT VALUES", timeout=0.5)
        assert cluster.primary.execute("SHOW work_mem") == "5MB"
        cluster.replicas[0].start()
        assert cluster.replicas[0].execute("SHOW work_mem") == "5MB"
        assert (
            r"application_name = 'it''s a \\ name'" in (cluster.primary.data_directory / "postgresql.conf").read_text()
        )


def test_a_setting_that_postgresql_refuses_is_shown(folder: pathlib.Path) -> None:
    """The end of the log names it."""
    with (
        pytest.raises(ServerFailedError, match="no_such_setting") as caught,
        LocalCluster(0, folder=folder, settings={"no_such_setting": "1"}),
    ):
        raise AssertionError

    assert (caught.value.server, caught.value.action) == ("primary", "start")
    assert is_clean(folder)


def test_missing_programs_leave_nothing(folder: pathlib.Path) -> None:
    """The error is raised before anything is created."""
    with pytest.raises(BinaryNotFoundError), LocalCluster(folder=folder, binaries=folder):
        raise AssertionError

    assert is_clean(folder)


def test_a_folder_that_does_not_exist_is_refused(folder: pathlib.Path) -> None:
    """It may be a typing error, which creating the folder would hide."""
    with pytest.raises(FolderNotUsableError), LocalCluster(folder=folder / "missing"):
        raise AssertionError

    assert is_clean(folder)


def test_a_full_disk_is_reported_and_leaves_nothing(folder: pathlib.Path) -> None:
    """Initdb is the first program to fail."""
    directory = folder / "installation" / "bin"
    directory.mkdir(parents=True)
    for name in binaries.REQUIRED:
        (directory / name).write_text(
            "#!/bin/sh\n[ $1 = --version ] || { echo No space left on device >&2; exit 1; }\n"
        )
        (directory / name).chmod(0o755)

    with pytest.raises(FolderNotUsableError, match="no space"), LocalCluster(folder=folder, binaries=directory):
        raise AssertionError

    assert [path.name for path in folder.iterdir()] == ["installation"]


def test_programs_that_the_account_cannot_reach_are_copied(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INVARIANT: the permissions of the installation are not changed; a home folder stays private."""
    private = folder / "private"
    copied = binaries.copy_installation(binaries.find_binaries(None), private)
    private.chmod(0o700)
    steps: list[str] = []
    if os.getuid() != 0:
        monkeypatch.setattr(Account, "as_arguments", lambda _: {})
        monkeypatch.setattr(Programs, "can_run", lambda _: False)
        account = Account(name="me", uid=os.getuid(), gid=os.getgid())
        monkeypatch.setattr(module, "account_for_programs", lambda: account)

    with LocalCluster(1, folder=folder, binaries=copied, progress=steps.append) as cluster:
        assert cluster.replicas[0].execute("SELECT 1") == "1"
        assert steps[0].startswith("programs: copy")

    assert private.stat().st_mode & 0o777 == 0o700
    assert list(folder.iterdir()) == [private]
    shutil.rmtree(private)


@pytest.mark.skipif(not pathlib.Path("/usr/lib/postgresql/15/bin/postgres").exists(), reason="no system PostgreSQL 15")
def test_an_older_postgresql_of_the_system_will_do(folder: pathlib.Path) -> None:
    """Some machines cannot install the wheel; and without checksums, pg_rewind needs hints in the WAL."""
    directory = pathlib.Path("/usr/lib/postgresql/15/bin")
    with LocalCluster(1, folder=folder, binaries=directory) as cluster:
        assert cluster.primary.execute("SHOW server_version").startswith("15.")
        cluster.primary.stop()
        cluster.replicas[0].promote()
        cluster.primary.follow(cluster.replicas[0])
        cluster.replicas[0].execute("CREATE TABLE t AS SELECT 1 AS number")
        cluster.catch_up()
        assert cluster.primary.execute("SELECT number FROM t") == "1"

import os
import pathlib
import shutil
import subprocess
import sys

import psutil
import pytest

from modern_di_replicas.testing import LocalCluster, processes


def test_a_missing_or_incomplete_pid_file_is_ignored(tmp_path: pathlib.Path) -> None:
    """It is written in steps, while it is read."""
    assert processes.read_pid_file(tmp_path) is None
    (tmp_path / processes.PID_FILE).write_text("")
    assert processes.read_pid_file(tmp_path) is None
    (tmp_path / processes.PID_FILE).write_text("12\n/data\n")
    assert processes.read_pid_file(tmp_path) == processes.PidFile(pid=12, segment=None, status="")


def test_the_pid_of_another_program_is_not_a_postmaster(tmp_path: pathlib.Path) -> None:
    """INVARIANT: the number in a pid file is verified, because it may belong to another process by now."""
    (tmp_path / processes.PID_FILE).write_text(f"{os.getpid()}\n")

    assert processes.find_postmaster(tmp_path) is None


def test_an_unused_pid_is_not_a_postmaster(tmp_path: pathlib.Path) -> None:
    """A killed server leaves its pid file behind."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (tmp_path / processes.PID_FILE).write_text(f"{process.pid}\n")

    assert processes.find_postmaster(tmp_path) is None


def test_the_postmaster_of_another_folder_is_not_ours(replicated_cluster: LocalCluster, tmp_path: pathlib.Path) -> None:
    """INVARIANT: a PostgreSQL server is not sufficient; it must have been started for this data directory."""
    real = processes.find_postmaster(replicated_cluster.primary.data_directory)
    assert real is not None
    (tmp_path / processes.PID_FILE).write_text(f"{real.pid}\n")

    assert processes.find_postmaster(tmp_path) is None


def test_a_child_of_the_postmaster_is_not_taken_for_it(
    replicated_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the same working directory and name."""
    directory = replicated_cluster.primary.data_directory
    real = processes.find_postmaster(directory)
    assert real is not None
    child = real.children()[0]
    record = processes.PidFile(pid=child.pid, segment=None, status="ready")
    monkeypatch.setattr(processes, "read_pid_file", lambda _: record)

    assert processes.find_postmaster(directory) is None


def test_a_process_that_may_not_be_looked_at_is_not_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """It is another user's server."""

    class Hidden:
        pid = 1

        def name(self) -> str:
            return "postgres"

        def cwd(self) -> str:
            raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil, "process_iter", lambda: [Hidden()])

    assert processes.programs_below(tmp_path) == []


def test_a_program_that_does_not_quit_is_killed(folder: pathlib.Path) -> None:
    """Only a PostgreSQL program that works in the folder; a shell in that folder keeps running."""
    sleep = shutil.which("sleep")
    assert sleep is not None
    shutil.copy(sleep, folder / "psql")
    (folder / "primary").mkdir()
    (folder / "primary" / processes.PID_FILE).write_text("1\n")
    program = subprocess.Popen([folder / "psql", "60"], cwd=folder)  # noqa: S603 - our own copy
    stranger = subprocess.Popen([sleep, "60"], cwd=folder)  # noqa: S603 - the system's own program

    assert processes.end_everything_below(folder)

    assert program.wait(10.0) != 0
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()

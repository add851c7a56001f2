import pathlib
import subprocess
import sys
import threading
import typing

import pytest

from modern_di_replicas.errors import ClusterStateError, FolderNotUsableError, ServerFailedError
from modern_di_replicas.testing.programs import Programs, _kill_session
from modern_di_replicas.testing.waiting import wait_until
from modern_di_replicas.testing.workspace import Workspace


MakeProgram = typing.Callable[[str], Programs]


@pytest.fixture
def make_program(folder: pathlib.Path) -> typing.Iterator[MakeProgram]:
    """Return a function that creates a program called `psql` from a shell script."""
    workspace = Workspace(parent=folder, account=None)
    workspace.open()
    binaries = workspace.folder / "bin"
    binaries.mkdir()

    def make(script: str) -> Programs:
        (binaries / "psql").write_text(f"#!/bin/sh\n{script}\n")
        (binaries / "psql").chmod(0o755)
        return Programs(binaries=binaries, workspace=workspace, account=None, password="secret")

    yield make
    workspace.remove()


def test_a_program_gets_its_input_and_the_password(make_program: MakeProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    """The password is passed in the environment, without the user's own PG* variables."""
    monkeypatch.setenv("PGHOST", "elsewhere.invalid")
    programs = make_program('cat; echo "$PGPASSWORD $PGHOST"; pwd')

    output = programs.run("psql", server="primary", action="try", stdin="in\n")

    assert output.splitlines() == ["in", "secret ", str(programs.workspace.folder)]


def test_a_failure_quotes_the_output_of_the_program(make_program: MakeProgram) -> None:
    """Standard output and standard error are both quoted."""
    programs = make_program("echo one; echo two >&2; exit 3")

    with pytest.raises(ServerFailedError) as caught:
        programs.run("psql", server="replica-1", action="try")

    assert (caught.value.server, caught.value.action, caught.value.output) == ("replica-1", "try", "one\ntwo\n")


def test_a_full_disk_is_a_folder_that_cannot_be_used(make_program: MakeProgram) -> None:
    """The remedy is another folder, not another server."""
    programs = make_program('echo "could not write file: No space left on device" >&2; exit 1')

    with pytest.raises(FolderNotUsableError) as caught:
        programs.run("psql", server="primary", action="try")

    assert caught.value.folder == programs.workspace.parent


def test_a_program_that_does_not_end_is_killed_with_its_children(make_program: MakeProgram) -> None:
    """INVARIANT: its whole session is killed; otherwise a child that keeps the pipe open would block the caller."""
    programs = make_program("sleep 60 & sleep 60")

    with pytest.raises(ServerFailedError) as caught:
        programs.run("psql", server="primary", action="try", timeout=0.1)

    assert caught.value.action == "try within 0.1 s"


def test_a_missing_program_is_a_failure(make_program: MakeProgram) -> None:
    """It quotes the operating system's message."""
    programs = make_program("")

    with pytest.raises(ServerFailedError) as caught:
        programs.run("pg_rewind", server="primary", action="rewind")

    assert "No such file" in caught.value.output


def test_closing_ends_running_programs_and_refuses_new_ones(make_program: MakeProgram) -> None:
    """A cancelled start must not wait for a base backup."""
    programs = make_program("touch running; sleep 60")
    caught: list[BaseException] = []

    def run() -> None:
        try:
            programs.run("psql", server="primary", action="try")
        except ClusterStateError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert wait_until((programs.workspace.folder / "running").exists, timeout=10.0)
    programs.close()
    thread.join(10.0)

    assert len(caught) == 1
    with pytest.raises(ClusterStateError):
        programs.run("psql", server="primary", action="try")


def test_a_program_that_has_ended_is_not_signalled() -> None:
    """Its process id may belong to another process by now."""
    process = subprocess.Popen([sys.executable, "-c", ""], text=True)
    process.wait()

    _kill_session(process)

    assert process.returncode == 0

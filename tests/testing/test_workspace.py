import fcntl
import os
import pathlib
import shutil
import sys
import tempfile

import pytest

from modern_di_replicas.errors import FolderNotUsableError
from modern_di_replicas.testing import workspace
from modern_di_replicas.testing.accounts import Account
from modern_di_replicas.testing.workspace import MARKER, PREFIX, Workspace, default_parent


def open_workspace(folder: pathlib.Path) -> Workspace:
    made = Workspace(parent=folder, account=None)
    made.open()
    return made


def test_a_workspace_comes_and_goes(folder: pathlib.Path) -> None:
    """Only the owner can access its files, and nothing remains."""
    made = open_workspace(folder)
    secret = made.write("password", "secret")

    assert secret.read_text() == "secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    (made.folder / "programs").mkdir()
    made.remove()
    made.remove()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_a_path_that_is_not_a_folder_is_refused(folder: pathlib.Path, kind: str) -> None:
    """The error names the folder and the reason."""
    path = folder / "wanted"
    if kind == "a file":
        path.touch()

    with pytest.raises(FolderNotUsableError) as caught:
        open_workspace(path)

    assert caught.value.folder == path
    assert caught.value.reason


def test_a_folder_that_cannot_be_written_to_is_refused() -> None:
    """Even root cannot create a folder there."""
    path = "/proc" if sys.platform == "linux" else "/"

    with pytest.raises(FolderNotUsableError) as caught:
        open_workspace(pathlib.Path(path))

    assert caught.value.folder == pathlib.Path(path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root runs programs as another account")
def test_a_folder_that_the_account_cannot_enter_is_refused(folder: pathlib.Path) -> None:
    """INVARIANT: the permissions of folders that the cluster did not create are not changed."""
    private = folder / "private"
    private.mkdir(mode=0o700)

    with pytest.raises(FolderNotUsableError) as caught:
        Workspace(parent=private, account=Account(name="nobody", uid=65534, gid=65534)).open()

    assert "nobody" in caught.value.reason
    assert private.stat().st_mode & 0o777 == 0o700
    assert list(private.iterdir()) == []


def test_a_workspace_belongs_to_the_account(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL requires ownership of its data directory, and must read the password file."""
    owned: list[pathlib.Path] = []
    entered = [True, False]
    monkeypatch.setattr(Account, "own", lambda _, path: owned.append(path))
    monkeypatch.setattr(Account, "as_arguments", lambda _: {})
    monkeypatch.setattr(workspace, "_can_enter", lambda *_: entered.pop(0))
    made = Workspace(parent=folder, account=Account(name="me", uid=os.getuid(), gid=os.getgid()))
    made.open()
    path = made.write("password", "secret")

    assert owned == [made.folder, path]
    made.remove()
    with pytest.raises(FolderNotUsableError):
        made.open()
    assert list(folder.iterdir()) == []


def test_a_dead_owners_folder_goes_and_a_live_ones_stays(folder: pathlib.Path) -> None:
    """The lock distinguishes them."""
    live = open_workspace(folder)
    dead = folder / f"{PREFIX}dead"
    dead.mkdir()
    (dead / MARKER).touch()
    (dead / "primary").mkdir()
    (dead / "link").symlink_to(live.folder)

    workspace.sweep(folder)

    assert list(folder.iterdir()) == [live.folder]
    assert (live.folder / MARKER).exists()
    live.remove()


def test_other_folders_stay(folder: pathlib.Path) -> None:
    """INVARIANT: only a folder with our marker, or an empty one with our name, is removed."""
    file = folder / f"{PREFIX}notes"
    file.touch()
    full = folder / f"{PREFIX}results"
    full.mkdir()
    (full / "result").touch()
    linked = folder / f"{PREFIX}link"
    linked.symlink_to(full)
    strange = folder / f"{PREFIX}strange"
    (strange / MARKER).mkdir(parents=True)
    before = sorted(folder.rglob("*"))

    workspace.sweep(folder)

    assert sorted(folder.rglob("*")) == before


def test_an_owner_that_died_before_the_lock_leaves_nothing(folder: pathlib.Path) -> None:
    """No other program creates an empty folder with our name."""
    (folder / f"{PREFIX}empty").mkdir()

    workspace.sweep(folder)

    assert list(folder.iterdir()) == []


def test_two_sweepers_do_not_disturb_each_other(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that the other one removes between the check and the lock is not an error."""
    dead = folder / f"{PREFIX}dead"
    dead.mkdir()
    flock = fcntl.flock

    def remove_first(lock: int, operation: int) -> None:
        dead.rmdir()
        flock(lock, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    workspace.sweep(folder)
    workspace.sweep(folder)

    assert list(folder.iterdir()) == []


def test_a_folder_that_was_replaced_meanwhile_is_left_alone(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is on the old folder, and says nothing about the new one."""
    dead = folder / f"{PREFIX}dead"
    dead.mkdir()
    (dead / MARKER).touch()
    flock = fcntl.flock

    def replace_first(lock: int, operation: int) -> None:
        dead.rename(folder / "elsewhere")
        dead.mkdir()
        flock(lock, operation)

    monkeypatch.setattr(fcntl, "flock", replace_first)
    workspace.sweep(folder)

    assert dead.exists()


def test_a_file_system_without_locks_is_refused(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the lock, the remains of a killed owner could not be removed."""

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)

    with pytest.raises(FolderNotUsableError) as caught:
        open_workspace(folder)

    assert caught.value.reason == "Operation not supported"
    assert list(folder.iterdir()) == []


def test_a_creator_whose_folder_is_swept_creates_another(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is locked, a new folder looks like that of a dead owner."""
    take_lock = workspace._take_lock  # noqa: SLF001 - the race lies inside
    answers = [True, False]

    def lose_once(path: pathlib.Path) -> int | None:
        if answers.pop():
            return take_lock(path)
        path.rmdir()
        return take_lock(path)

    monkeypatch.setattr(workspace, "_take_lock", lose_once)
    made = open_workspace(folder)

    assert list(folder.iterdir()) == [made.folder]
    made.remove()


def test_a_creator_gives_up_after_a_while(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of attempts is limited."""
    monkeypatch.setattr(workspace, "_take_lock", lambda _: None)

    with pytest.raises(FolderNotUsableError):
        open_workspace(folder)

    assert list(folder.iterdir()) == []


def test_a_folder_with_running_processes_stays(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removing it would only hide the processes."""
    made = open_workspace(folder)
    with monkeypatch.context() as patch:
        patch.setattr(workspace, "end_everything_below", lambda _: False)
        with pytest.raises(TimeoutError):
            made.remove()

    assert (made.folder / MARKER).exists()
    made.remove()


def test_a_removed_folder_is_not_an_error(folder: pathlib.Path) -> None:
    """A manual clean-up must not fail the end of a test run."""
    made = open_workspace(folder)
    shutil.rmtree(made.folder)

    made.remove()

    assert list(folder.iterdir()) == []


def test_a_cluster_is_made_in_memory_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Unless TMPDIR names another place, there is too little memory, or no such file system exists."""
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr("modern_di_replicas.testing.workspace.MEMORY", tmp_path)
    monkeypatch.setattr("modern_di_replicas.testing.workspace.MEMORY_NEEDED", 1)
    assert default_parent() == tmp_path

    monkeypatch.setattr("modern_di_replicas.testing.workspace.MEMORY_NEEDED", 1 << 80)
    assert default_parent() == pathlib.Path(tempfile.gettempdir())

    monkeypatch.setattr("modern_di_replicas.testing.workspace.MEMORY", tmp_path / "missing")
    assert default_parent() == pathlib.Path(tempfile.gettempdir())

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert default_parent() == pathlib.Path(tempfile.gettempdir())

import contextlib
import os
import pathlib
import secrets
import shutil
import stat
import subprocess
import tempfile
import typing

from modern_di_replicas.errors import FolderNotUsableError
from modern_di_replicas.testing.accounts import Account
from modern_di_replicas.testing.posix import fcntl
from modern_di_replicas.testing.processes import end_everything_below


PREFIX: typing.Final = "modern-di-replicas-"
MARKER: typing.Final = "OWNED-BY-MODERN-DI-REPLICAS"
ATTEMPTS: typing.Final = 10


MEMORY: typing.Final = pathlib.Path("/dev/shm")  # noqa: S108  # a file system in memory, not a predictable file name
MEMORY_NEEDED: typing.Final = 1 << 30


def default_parent() -> pathlib.Path:
    """Return the default parent folder of clusters: in memory if there is room, else the temporary folder.

    A cluster is a thousand small files for each server; in memory it is ready three times as fast. TMPDIR overrides
    both.
    """
    if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK | os.X_OK):
        facts = os.statvfs(MEMORY)
        if facts.f_bavail * facts.f_frsize >= MEMORY_NEEDED and not facts.f_flag & os.ST_NOEXEC:
            return MEMORY
    return pathlib.Path(tempfile.gettempdir())


class Workspace:
    """The folder of one cluster, and the lock that shows that its owner is alive.

    The owner holds an `flock` on the folder for its whole life, and the kernel releases it however the owner dies. A
    process that gets the lock of a folder with a marker therefore knows that it is unused. The marker is written under
    the lock and removed last, so a folder with content always has it.

    Args:
        parent: The folder to make it in.
        account: The owner of its files; None is the account of Python.

    """

    def __init__(self, *, parent: pathlib.Path, account: Account | None) -> None:
        self.parent = parent
        self.folder = parent
        self._account = account
        self._lock: int | None = None

    def open(self) -> None:
        """Remove the folders of dead owners, then create this one.

        Raises:
            FolderNotUsableError: The parent is not there, cannot be written to, or cannot be entered by the account.

        """
        try:
            self.parent = self.parent.resolve(strict=True)
            sweep(self.parent)
            self._make()
        except OSError as error:
            self.remove()
            raise FolderNotUsableError(folder=self.parent, reason=error.strerror or str(error)) from error
        if self._account is not None and not _can_enter(self._account, self.folder):
            self.remove()
            reason = f"{self._account.name!r}, who runs PostgreSQL because root may not, cannot enter it"
            raise FolderNotUsableError(folder=self.parent, reason=reason)

    def write(self, name: str, text: str) -> pathlib.Path:
        """Write a file that only the programs' account can read."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        if self._account is not None:
            self._account.own(path)
        return path

    def remove(self) -> None:
        """End every process that works in the folder, and remove it; may be called again, and after a failure."""
        if self.folder == self.parent:
            return
        if self._lock is None:
            # Interrupted before the lock: it is empty, or belongs to another process.
            with contextlib.suppress(OSError):
                self.folder.rmdir()
            return
        _destroy(self.folder)
        os.close(self._lock)
        self.folder, self._lock = self.parent, None

    def _make(self) -> None:
        for _ in range(ATTEMPTS):
            self.folder = self.parent / f"{PREFIX}{secrets.token_hex(4)}"
            self.folder.mkdir(mode=0o700)
            self._lock = _take_lock(self.folder)
            if self._lock is not None:
                break
            # Before the lock, another process has removed the empty folder as a dead owner's.
            with contextlib.suppress(OSError):
                self.folder.rmdir()
        else:
            raise FileExistsError(None, "other processes keep removing new folders")
        (self.folder / MARKER).touch(mode=0o600)
        if self._account is not None:
            self._account.own(self.folder)


def sweep(parent: pathlib.Path) -> None:
    """Remove every cluster folder whose owner is dead, with its processes and shared memory, and nothing else."""
    for folder in parent.glob(f"{PREFIX}*"):
        # It may vanish meanwhile, or belong to another user.
        with contextlib.suppress(OSError):
            _sweep_one(folder)


def _sweep_one(folder: pathlib.Path) -> None:
    lock = _take_lock(folder)
    if lock is None:
        return
    try:
        if _is_cluster_folder(folder):
            _destroy(folder)
    finally:
        os.close(lock)


def _take_lock(folder: pathlib.Path) -> int | None:
    """Lock the folder, unless another process holds the lock or has removed the folder meanwhile."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), folder.stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _is_cluster_folder(folder: pathlib.Path) -> bool:
    try:
        marker = (folder / MARKER).lstat()
    except FileNotFoundError:
        # Its owner died before the lock: it is empty.
        return folder.stat().st_uid == os.geteuid() and not any(folder.iterdir())
    return stat.S_ISREG(marker.st_mode) and marker.st_uid == os.geteuid()


def _destroy(folder: pathlib.Path) -> None:
    if not folder.exists():
        return
    if not end_everything_below(folder):
        raise TimeoutError(None, "its processes do not end", str(folder))
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARKER:
            path.unlink()
    (folder / MARKER).unlink(missing_ok=True)
    folder.rmdir()


def _can_enter(account: Account, folder: pathlib.Path) -> bool:
    # Only the kernel knows (access lists, mounts): let the account try.
    attempt = subprocess.run(  # noqa: S603 - a constant program, and the folder is an argument, not shell text
        ["/bin/sh", "-c", 'cd "$0"', str(folder)],
        check=False,
        capture_output=True,
        **account.as_arguments(),
    )
    return attempt.returncode == 0

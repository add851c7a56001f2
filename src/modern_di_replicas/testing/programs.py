import contextlib
import os
import pathlib
import signal
import subprocess
import threading
import typing

from modern_di_replicas.errors import ClusterStateError, FolderNotUsableError, ServerFailedError
from modern_di_replicas.testing.accounts import Account
from modern_di_replicas.testing.workspace import Workspace


PROGRAM_SECONDS: typing.Final = 120.0
# Root may run it; and for another account, Python would have to fork instead of vfork, which takes twice the time.
AS_ROOT: typing.Final = frozenset({"psql"})


class Programs:
    """Runs the PostgreSQL programs of one cluster: as the right account, in its folder, each in its own session.

    The own session keeps the Ctrl-C of a terminal away from them: the cluster ends them itself, in order. The folder
    is the working directory of all of them, which is how they are found again when their owner was killed.

    Args:
        binaries: The folder of the programs.
        workspace: Where they work.
        account: The account that runs them; None is that of Python.
        password: The superuser's password; it goes through the environment, never on a command line.

    """

    def __init__(self, *, binaries: pathlib.Path, workspace: Workspace, account: Account | None, password: str) -> None:
        self.binaries = binaries
        self.workspace = workspace
        self._account = account
        self._password = password
        self._lock = threading.Lock()
        self._closed = False
        self._running: set[subprocess.Popen[str]] = set()
        self._servers: list[subprocess.Popen[str]] = []

    def run(
        self,
        program: str,
        *arguments: str,
        server: str,
        action: str,
        stdin: str = "",
        timeout: float = PROGRAM_SECONDS,
    ) -> str:
        """Run a program and return its output.

        Raises:
            ServerFailedError: It ended with an error, or not within `timeout` seconds, or cannot be started.
            FolderNotUsableError: The disk is full.
            ClusterStateError: The cluster is stopped, or was stopped while the program ran.

        """
        with self._lock:
            self.check_open(action)
            process = self._popen(program, *arguments, server=server, action=action, output=subprocess.PIPE)
            self._running.add(process)
        try:
            with process:
                output, errors = self._communicate(process, stdin, timeout)
        except subprocess.TimeoutExpired:
            raise self.failure(server=server, action=f"{action} within {timeout:g} s", output="") from None
        finally:
            self._running.discard(process)
        if process.returncode != 0:
            self.check_open(action)
            raise self.failure(server=server, action=action, output=f"{output}{errors}")
        return output

    def spawn(self, program: str, *arguments: str, server: str, log: pathlib.Path) -> subprocess.Popen[str]:
        """Start a server program that keeps running and writes to a log file.

        Raises:
            ServerFailedError: It cannot be started.
            ClusterStateError: The cluster is stopped.

        """
        with self._lock:
            self.check_open("start")
            with log.open("a") as output:
                process = self._popen(program, *arguments, server=server, action="start", output=output)
            self._servers.append(process)
            return process

    def can_run(self) -> bool:
        """Return whether the account can access the programs, their libraries and their data in place."""
        needed = self.binaries.parent / "share" / "postgres.bki"
        script = '"$0" --version && "$1" --version && { [ ! -e "$2" ] || [ -r "$2" ]; }'
        programs = [str(self.binaries / name) for name in ("postgres", "pg_basebackup")]
        attempt = subprocess.run(  # noqa: S603 - a constant script, the paths are arguments, not shell text
            ["/bin/sh", "-c", script, *programs, str(needed)],
            check=False,
            capture_output=True,
            **self._as_account(),
        )
        return attempt.returncode == 0

    def check_open(self, action: str) -> None:
        """Refuse to work for a stopped cluster.

        Raises:
            ClusterStateError: The cluster is stopped.

        """
        if self._closed:
            raise ClusterStateError(action=action, state="stopped")

    def close(self) -> None:
        """Start no more programs, and kill those that should have ended by themselves, except servers."""
        self._closed = True
        with self._lock:
            running = list(self._running)
        for process in running:
            _kill_session(process)

    def reap(self) -> None:
        """Reap the servers that have ended, so that no zombie stays."""
        for process in self._servers:
            process.poll()

    def failure(self, *, server: str, action: str, output: str) -> ServerFailedError | FolderNotUsableError:
        """Return the error of a failed program."""
        if "No space left on device" in output:
            return FolderNotUsableError(folder=self.workspace.parent, reason="no space is left on it")
        return ServerFailedError(server=server, action=action, output=output)

    def _popen(
        self, program: str, *arguments: str, server: str, action: str, output: int | typing.TextIO
    ) -> subprocess.Popen[str]:
        try:
            return subprocess.Popen(  # noqa: S603 - programs from our own list, no shell
                [str(self.binaries / program), *arguments],
                stdin=subprocess.PIPE if output == subprocess.PIPE else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
                errors="replace",
                cwd=self.workspace.folder,
                env=self._environment(),
                start_new_session=True,
                **({} if program in AS_ROOT else self._as_account()),
            )
        except OSError as error:
            raise ServerFailedError(server=server, action=action, output=str(error)) from error

    def _communicate(self, process: subprocess.Popen[str], stdin: str, timeout: float) -> tuple[str, str]:
        try:
            return process.communicate(stdin, timeout)
        except BaseException:
            _kill_session(process)
            raise

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return {
            **inherited,
            "HOME": str(self.workspace.folder),
            "LC_ALL": "C",
            "PGGSSENCMODE": "disable",
            "PGPASSWORD": self._password,
            "PGSSLMODE": "disable",
        }

    def _as_account(self) -> dict[str, typing.Any]:
        return {} if self._account is None else self._account.as_arguments()


def _kill_session(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

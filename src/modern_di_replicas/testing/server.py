import contextlib
import shutil
import signal
import socket
import subprocess
import threading
import typing

import psutil

from modern_di_replicas.errors import ServerFailedError
from modern_di_replicas.testing.processes import find_postmaster, read_pid_file
from modern_di_replicas.testing.programs import Programs
from modern_di_replicas.testing.waiting import wait_until


HOST: typing.Final = "127.0.0.1"
USER: typing.Final = "postgres"
DATABASE: typing.Final = "postgres"
START_SECONDS: typing.Final = 60.0
STOP_SECONDS: typing.Final = 60.0
SIGNAL_SECONDS: typing.Final = 10.0
STREAMING_SECONDS: typing.Final = 30.0
REPLAY_SECONDS: typing.Final = 10.0
EXECUTE_SECONDS: typing.Final = 30.0
PORT_ATTEMPTS: typing.Final = 10
LOG_TAIL_CHARACTERS: typing.Final = 4000
STOP_SIGNALS: typing.Final = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class LocalServer:
    """One PostgreSQL server of a `LocalCluster`: where it is, and everything that can go wrong with it, on demand.

    Every method is synchronous, waits until what it asked for is true, and may be called from any thread. All of them
    raise `ServerFailedError`, with what PostgreSQL said, when a program fails or does not do its work in time, and
    those that need the cluster raise `ClusterStateError` after it stopped.
    """

    def __init__(self, *, name: str, programs: Programs, password: str) -> None:
        self.name: typing.Final = name
        """`primary`, `replica-1`, ...: the role it began with; also its `cluster_name` and `application_name`."""
        self.host: typing.Final = HOST
        self.port: int = free_port()
        self.data_directory: typing.Final = programs.workspace.folder / name
        self._password = password
        self._programs = programs
        self._log = programs.workspace.folder / f"{name}.log"
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"LocalServer(name={self.name!r}, port={self.port})"

    @property
    def url(self) -> str:
        """The address for SQLAlchemy's `create_async_engine`, with the password."""
        return f"postgresql+asyncpg://{USER}:{self._password}@{self.host}:{self.port}/{DATABASE}"

    @property
    def dsn(self) -> str:
        """The address for asyncpg and psql, with the password."""
        return f"postgresql://{USER}:{self._password}@{self.host}:{self.port}/{DATABASE}"

    def is_running(self) -> bool:
        """Say whether its process lives; a frozen server does."""
        return self._postmaster() is not None

    def is_frozen(self) -> bool:
        """Say whether it is stopped in its tracks by `freeze()`."""
        process = self._postmaster()
        return process is not None and _is_stopped(process)

    def start(self) -> None:
        """Start the server and wait until it accepts connections; nothing happens when it is running."""
        with self._lock:
            if not self.is_running():
                self._launch(may_move=False)

    def stop(self, mode: typing.Literal["fast", "immediate", "smart"] = "fast") -> None:
        """Stop the server, frozen or not, and wait until its process ended; nothing happens when it is stopped.

        Args:
            mode: `fast` ends the connections and shuts down in order, `immediate` is a crash (the next start
                recovers), and `smart` waits until the clients have gone. At most 60 seconds each.

        """
        with self._lock:
            process = self._postmaster()
            if process is None:
                return
            process.send_signal(STOP_SIGNALS[mode])
            # A frozen server gets the signal when it thaws.
            self.thaw()
            self._wait(lambda: not self.is_running(), action=f"stop ({mode})", timeout=STOP_SECONDS)

    def restart(self) -> None:
        """Stop the server in order and start it again, on the same port."""
        with self._lock:
            self.stop()
            self.start()

    def freeze(self) -> None:
        """Freeze the server: connections stay open and get no answer, like a host that hangs."""
        with self._lock:
            process = self._postmaster()
            if process is None:
                raise self._failure(action="freeze", output="It is not running.")
            # The postmaster first: from then on there are no new children.
            process.suspend()
            self._wait(lambda: _suspend_what_runs(process), action="freeze", timeout=SIGNAL_SECONDS)

    def thaw(self) -> None:
        """Let a frozen server go on; nothing happens when it is not frozen."""
        with self._lock:
            process = self._postmaster()
            if process is None:
                return
            try:
                # The postmaster first: a signal that waits for it comes before anything its children still say.
                process.resume()
                for child in process.children(recursive=True):
                    child.resume()
            except psutil.NoSuchProcess:
                return

    def pause_replay(self) -> None:
        """Hold the replay of WAL, so that the replica lags from here on, and wait until it is really held."""
        self._act("SELECT pg_wal_replay_pause()", "pause the replay")
        question = "SELECT pg_get_wal_replay_pause_state() = 'paused'"
        self._wait(lambda: self.execute(question) == "t", action="pause the replay", timeout=REPLAY_SECONDS)

    def resume_replay(self) -> None:
        """Let the replay of WAL go on; nothing happens when it is not held."""
        self._act("SELECT pg_wal_replay_resume()", "resume the replay")

    def promote(self) -> None:
        """Make the replica a primary and wait until it is one; nothing happens when it is one already."""
        with self._lock:
            if self.execute("SELECT pg_is_in_recovery()") == "f":
                return
            self._act("SELECT pg_promote(false)", "promote")
            question = "SELECT pg_is_in_recovery()"
            self._wait(lambda: self.execute(question) == "f", action="promote", timeout=START_SECONDS)

    def follow(self, other: "LocalServer") -> None:
        """Make this server, stopped first if need be, a standby of another one, and wait until it streams.

        What it holds and the other does not is lost: `pg_rewind` takes it back to where the two parted, and where
        that cannot be done, a fresh base backup replaces everything.
        """
        if other is self:
            raise self._failure(action="follow itself", output="A server follows another one.")
        with self._lock:
            self.stop()
            slot = _slot(self.name)
            other.execute(
                f"SELECT pg_create_physical_replication_slot('{slot}') "  # noqa: S608 - the slot is ours
                f"WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{slot}');"
                # pg_rewind reads the timeline from the last checkpoint, which a promotion does not wait for.
                "CHECKPOINT;"
            )
            try:
                self._rewind(other)
            except ServerFailedError:
                shutil.rmtree(self.data_directory)
                self.base_backup(other, create_slot=False)
            self.start()
            other.wait_for_streaming((self.name,))

    def execute(self, sql: str, *, timeout: float = EXECUTE_SECONDS) -> str:
        """Run SQL through psql, one transaction for each statement, and return what it answers.

        Args:
            sql: One or more statements.
            timeout: The longest wait, in seconds.

        Returns:
            The rows in lines, the columns with `|` between them, true as `t`.

        Raises:
            ServerFailedError: PostgreSQL refused, or gave no answer in time.

        """
        return self._act(sql, "execute the SQL", timeout=timeout)

    def log(self) -> str:
        """Return everything that the server has logged."""
        self._programs.check_open("read a log")
        return self._log.read_text(errors="replace")

    def wait_for_streaming(self, names: typing.Sequence[str]) -> None:
        """Wait until each of these standbys streams from this server."""
        question = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'"
        self._wait(
            lambda: set(names) <= set(self.execute(question).splitlines()),
            action=f"stream to {', '.join(names)}",
            timeout=STREAMING_SECONDS,
        )

    def initialise(self, settings: typing.Mapping[str, str]) -> None:
        """Make the data directory of the first primary."""
        workspace = self._programs.workspace
        password_file = workspace.write("password", self._password)
        self._programs.run(
            "initdb",
            *("--pgdata", str(self.data_directory), "--username", USER, "--pwfile", str(password_file)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync", "--no-instructions"),
            # Sixteen times less to write and to copy than with the default of 16 MB.
            *("--wal-segsize", "1"),
            server=self.name,
            action="initdb",
        )
        password_file.unlink()
        with (self.data_directory / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {_quoted(value)}\n" for name, value in settings.items())

    def base_backup(self, other: "LocalServer", *, create_slot: bool) -> None:
        """Copy another server's data directory while it runs, as that of its standby."""
        slot = ["--slot", _slot(self.name), *(["--create-slot"] if create_slot else [])]
        self._programs.run(
            "pg_basebackup",
            *("--pgdata", str(self.data_directory), "--host", other.host, "--port", str(other.port)),
            *("--username", USER, "--checkpoint", "fast", "--wal-method", "stream", "--write-recovery-conf"),
            *("--no-sync", "--no-password"),
            *slot,
            server=self.name,
            action="base backup",
        )

    def start_first_time(self) -> None:
        """Start the server; its port is not published yet, so it takes another one if the port is taken."""
        self._launch(may_move=True)

    def _launch(self, *, may_move: bool) -> None:
        output = ""
        for _ in range(PORT_ATTEMPTS):
            printed = self._log.stat().st_size if self._log.exists() else 0
            process = self._programs.spawn(
                "postgres",
                *("-D", str(self.data_directory), "-p", str(self.port), "-c", f"cluster_name={self.name}"),
                server=self.name,
                log=self._log,
            )
            if self._is_up(process):
                return
            output = self._log.read_bytes()[printed:].decode(errors="replace")
            if not (may_move and "could not bind" in output):
                break
            self.port = free_port()
        raise self._programs.failure(server=self.name, action="start", output=output)

    def _is_up(self, process: subprocess.Popen[str]) -> bool:
        def is_decided() -> bool:
            self._programs.check_open("start")
            return process.poll() is not None or is_ready()

        def is_ready() -> bool:
            record = read_pid_file(self.data_directory)
            return record is not None and record.pid == process.pid and record.status == "ready"

        if not wait_until(is_decided, timeout=START_SECONDS):
            process.send_signal(signal.SIGQUIT)
            with contextlib.suppress(subprocess.TimeoutExpired):  # who starts in the background ignores it at first
                process.wait(SIGNAL_SECONDS)
            process.kill()
            process.wait()
        return process.poll() is None

    def _rewind(self, other: "LocalServer") -> None:
        source = f"host={other.host} port={other.port} user={USER} dbname={DATABASE}"
        self._programs.run(
            "pg_rewind",
            *("--target-pgdata", str(self.data_directory), "--source-server", source),
            *("--write-recovery-conf", "--no-sync"),
            server=self.name,
            action="rewind",
        )
        with (self.data_directory / "postgresql.auto.conf").open("a") as file:
            # pg_rewind copied the settings of the other server, whose own slot may be among them: the last line wins.
            file.write(f"primary_slot_name = {_quoted(_slot(self.name))}\n")

    def _act(self, sql: str, action: str, *, timeout: float = EXECUTE_SECONDS) -> str:
        output = self._programs.run(
            "psql",
            *("--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--set", "ON_ERROR_STOP=1"),
            *("--no-password", "--host", self.host, "--port", str(self.port), "--username", USER),
            *("--dbname", DATABASE, "--file", "-"),
            server=self.name,
            action=action,
            stdin=sql,
            timeout=timeout,
        )
        return output.rstrip("\n")

    def _postmaster(self) -> psutil.Process | None:
        # PostgreSQL takes the zombie of a killed server for a running one.
        self._programs.reap()
        return find_postmaster(self.data_directory)

    def _wait(self, condition: typing.Callable[[], bool], *, action: str, timeout: float) -> None:
        if not wait_until(condition, timeout=timeout):
            raise self._failure(action=f"{action} within {timeout:g} s", output=self.log()[-LOG_TAIL_CHARACTERS:])

    def _failure(self, *, action: str, output: str) -> ServerFailedError:
        return ServerFailedError(server=self.name, action=action, output=output)


def free_port() -> int:
    """Find a free TCP port."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def _slot(name: str) -> str:
    return name.replace("-", "_")


def _quoted(value: str) -> str:
    # https://www.postgresql.org/docs/current/config-setting.html: quotes are doubled, backslashes escape.
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def _suspend_what_runs(postmaster: psutil.Process) -> bool:
    """Suspend what still runs below a suspended postmaster, and say whether there was nothing."""
    try:
        processes = [postmaster, *postmaster.children(recursive=True)]
        running = [
            process for process in processes if process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
        ]
        for process in running:
            process.suspend()
    except psutil.NoSuchProcess:
        return False
    return not running

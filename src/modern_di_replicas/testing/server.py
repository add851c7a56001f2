import contextlib
import shutil
import signal
import socket
import subprocess
import threading
import typing

import psutil

from modern_di_replicas.errors import ServerFailedError
from modern_di_replicas.testing.operations import (
    DATABASE,
    EXECUTE_SECONDS,
    START_SECONDS,
    STOP_SECONDS,
    STREAMING_SECONDS,
    USER,
    Server,
    StopMode,
)
from modern_di_replicas.testing.passwords import stored
from modern_di_replicas.testing.processes import find_postmaster, read_pid_file
from modern_di_replicas.testing.programs import Programs
from modern_di_replicas.testing.waiting import wait_until


HOST: typing.Final = "127.0.0.1"
SIGNAL_SECONDS: typing.Final = 10.0
PORT_ATTEMPTS: typing.Final = 10
DIVERGED: typing.Final = "before current recovery point"
"""In the log of a standby that has replayed records which the history of its primary does not have."""
STOP_SIGNALS: typing.Final = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class LocalServer(Server):
    """One PostgreSQL server of a `LocalCluster`.

    The methods that need the cluster raise `ClusterStateError` after it stopped.
    """

    def __init__(self, *, name: str, programs: Programs, password: str, driver: str) -> None:
        self.name = name
        self.host = HOST
        self.port = free_port()
        self.data_directory: typing.Final = programs.workspace.folder / name
        self._password = password
        self._driver = driver
        self._programs = programs
        self._log = programs.workspace.folder / f"{name}.log"
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"LocalServer(name={self.name!r}, port={self.port})"

    def is_running(self) -> bool:
        return self._postmaster() is not None

    def is_frozen(self) -> bool:
        process = self._postmaster()
        return process is not None and _is_stopped(process)

    def start(self) -> None:
        with self._lock:
            if not self.is_running():
                self._launch(may_move=False)

    def stop(self, mode: StopMode = "fast") -> None:
        with self._lock:
            process = self._postmaster()
            if process is None:
                return
            process.send_signal(STOP_SIGNALS[mode])
            # A frozen server gets the signal when it continues.
            self.thaw()
            self._wait(lambda: not self.is_running(), action=f"stop ({mode})", timeout=STOP_SECONDS)

    def freeze(self) -> None:
        with self._lock:
            process = self._postmaster()
            if process is None:
                raise self._failure(action="freeze", output="It is not running.")
            # The postmaster first: after that there are no new children.
            process.suspend()
            self._wait(lambda: _suspend_what_runs(process), action="freeze", timeout=SIGNAL_SECONDS)

    def thaw(self) -> None:
        with self._lock:
            process = self._postmaster()
            if process is None:
                return
            try:
                # The postmaster first: its pending signals are delivered before messages of its children.
                process.resume()
                for child in process.children(recursive=True):
                    child.resume()
            except psutil.NoSuchProcess:
                return

    def follow(self, other: "LocalServer") -> None:
        """Make this server, stopped first if need be, a standby of another one, and wait until it streams.

        Its data that the other server does not have is lost: `pg_rewind` takes it back to the point where the two
        diverged; if that is impossible, a fresh base backup replaces everything.
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
                self._copy(other)
            if not self._starts_streaming(other):
                self.stop()
                self._copy(other)
                self.start()
            other.wait_for_streaming((self.name,))

    def _starts_streaming(self, other: "LocalServer") -> bool:
        """Start, and return whether it can follow another server, on that one's timeline.

        pg_rewind finds nothing to do for a standby that has received, but not replayed, more than the new primary has.
        """
        printed = self._log.stat().st_size
        self.start()
        timeline = other.execute("SELECT timeline_id FROM pg_control_checkpoint()")
        streams = f"SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming' AND received_tli >= {timeline}"  # noqa: S608  # a number
        has_diverged = False

        def is_decided() -> bool:
            nonlocal has_diverged
            has_diverged = DIVERGED.encode() in self._log.read_bytes()[printed:]
            return has_diverged or self.execute(streams) == "1"

        self._wait(is_decided, action=f"stream from {other.name}", timeout=STREAMING_SECONDS)
        return not has_diverged

    def _copy(self, other: "LocalServer") -> None:
        shutil.rmtree(self.data_directory)
        self.base_backup(other, create_slot=False)

    def log(self) -> str:
        self._programs.check_open("read a log")
        return self._log.read_text(errors="replace")

    def initialise(self, settings: typing.Mapping[str, str]) -> None:
        """Create the data directory of the first primary."""
        workspace = self._programs.workspace
        password_file = workspace.write("password", stored(self._password))
        self._programs.run(
            "initdb",
            *("--pgdata", str(self.data_directory), "--username", USER, "--pwfile", str(password_file)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync", "--no-instructions"),
            # A sixteenth of the default of 16 MB, to write and copy less.
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
            with contextlib.suppress(subprocess.TimeoutExpired):  # a starting background process ignores it at first
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
        # For PostgreSQL, the zombie of a killed server is a running one.
        self._programs.reap()
        return find_postmaster(self.data_directory)


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
    """Suspend the running children of a suspended postmaster, and return whether there were none."""
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

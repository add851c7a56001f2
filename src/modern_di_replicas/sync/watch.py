"""The monitor of an application that has no start of its own: it begins with the first unit of work of each process."""

import threading

from modern_di_replicas.sync.engines import ReplicaEngine
from modern_di_replicas.sync.monitor import Monitor
from modern_di_replicas.sync.processes import forget_in_children


class Watch:
    """Starts the monitor when it is first needed, in each process anew.

    A server that forks its workers after it has loaded the application would otherwise have it in the parent alone.

    Args:
        replicas: the engine that stands for all replicas; what a test puts in its place is not watched.

    """

    def __init__(self, replicas: ReplicaEngine) -> None:
        self._replicas = replicas
        self._monitor: Monitor | None = None
        self._lock = threading.Lock()
        self._has_started = not (isinstance(replicas, ReplicaEngine) and replicas.settings.replicas)
        """Whether there is nothing to do: it runs, or there is nothing to watch."""
        forget_in_children(self)

    def start(self) -> None:
        """Start the monitor, if it does not run; those that call it at the same time wait for it.

        Raises:
            ConfigurationError: the primary refuses the user, the password or the database.

        """
        if self._has_started:
            return
        with self._lock:
            if not self._has_started:
                monitor = self._monitor or Monitor(self._replicas)
                monitor.start()
                self._monitor, self._has_started = monitor, True

    def stop(self) -> None:
        """Stop the monitor, if it runs."""
        with self._lock:
            monitor, self._monitor = self._monitor, None
            if monitor is not None:
                self._has_started = False
                monitor.stop()

    def forget_process(self) -> None:
        """Start the monitor anew in this process, which was forked from the one where it runs."""
        self._lock = threading.Lock()
        if self._monitor is not None:
            self._has_started = False


def create_watch(replicas: ReplicaEngine) -> Watch:
    """Return what starts the monitor when it is first needed."""
    return Watch(replicas)


def stop_watch(watch: Watch) -> None:
    """Stop the monitor, before the engines are disposed."""
    watch.stop()

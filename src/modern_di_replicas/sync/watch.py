"""The monitor of an application that has no start of its own: it begins with the first unit of work of each process."""

import atexit
import threading
import typing
import weakref

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
                monitor = Monitor(self._replicas)
                monitor.__enter__()
                self._monitor, self._has_started = monitor, True
                _started.add(self)

    def stop(self) -> None:
        """Stop the monitor, if it runs."""
        with self._lock:
            monitor, self._monitor = self._monitor, None
            if monitor is not None:
                self._has_started = False
                monitor.__exit__(None, None, None)

    def forget_process(self) -> None:
        """Forget the monitor of the process that this one was forked from."""
        self._lock = threading.Lock()
        if self._monitor is not None:
            self._monitor, self._has_started = None, False


_started: typing.Final[weakref.WeakSet[Watch]] = weakref.WeakSet()


def stop_started() -> None:
    """Stop the monitors at the end of a process that has not closed its container, as a forked worker does not."""
    for watch in list(_started):
        watch.stop()


# After the background's own, so that it is called before.
atexit.register(stop_started)


def create_watch(replicas: ReplicaEngine) -> Watch:
    """Return what starts the monitor when it is first needed."""
    return Watch(replicas)


def stop_watch(watch: Watch) -> None:
    """Stop the monitor, before the engines are disposed."""
    watch.stop()

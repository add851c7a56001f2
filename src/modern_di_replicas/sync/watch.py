"""The monitor of an application without a lifespan: it starts with the first unit of work of each process."""

from modern_di_replicas.sync.engines import ReplicaEngine
from modern_di_replicas.sync.monitor import Monitor


class Watch:
    """Starts the monitor when it is first needed, in each process, if there are replicas.

    Otherwise a server that forks its workers after it has loaded the application would have it only in the parent.

    Args:
        replicas: the engine that stands for all replicas; a test's replacement is not monitored.

    """

    def __init__(self, replicas: ReplicaEngine) -> None:
        is_needed = isinstance(replicas, ReplicaEngine) and replicas.settings.replicas
        self._monitor = Monitor(replicas) if is_needed else None

    def start(self) -> None:
        """Start the monitor, if it does not run; concurrent callers wait for it.

        Raises:
            ConfigurationError: the primary refuses the user, the password or the database.

        """
        if self._monitor is not None:
            self._monitor.start()

    def stop(self) -> None:
        """Stop the monitor, if it runs."""
        if self._monitor is not None:
            self._monitor.stop()

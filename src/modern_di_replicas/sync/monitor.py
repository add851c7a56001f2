"""The monitor of a synchronous application."""

import types
import typing

from modern_di_replicas.cluster.background import background
from modern_di_replicas.cluster.monitoring.monitor import Monitor as AsyncMonitor
from modern_di_replicas.sync.engines import ReplicaEngine


class Monitor:
    """Watches the servers of one application while it runs: `with Monitor(replica_engine): ...`.

    It runs in a daemon thread with an event loop, which all monitors of a process share. Hooks are called there.

    Args:
        replicas: the engine that stands for all replicas.

    Raises:
        ConfigurationError: at the start, the primary refuses the user, the password or the database.

    """

    def __init__(self, replicas: ReplicaEngine) -> None:
        self._monitor = AsyncMonitor(replicas)

    def __enter__(self) -> typing.Self:
        background.run(self._monitor.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        background.run(self._monitor.__aexit__(kind, error, traceback))

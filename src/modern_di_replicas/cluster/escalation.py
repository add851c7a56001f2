"""What happens when a unit of work leaves its replica."""

import dataclasses
import logging

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from modern_di_replicas.cluster.engines.either import AnyEngine
from modern_di_replicas.cluster.failures import reason_of
from modern_di_replicas.errors import WriteOnReplicaError
from modern_di_replicas.settings import OnWrite


logger = logging.getLogger("modern_di_replicas")


@dataclasses.dataclass(kw_only=True, slots=True)
class EscalationPolicy:
    """The primary of the replicas, and when a unit of work may use it.

    Args:
        primary: the engine of the primary; in a test it may be a connection.
        on_write: what to do about a write in a unit of work that reads from a replica.
        primary_reads: whether the primary serves reads because the replicas are too busy.

    """

    primary: AnyEngine | AsyncConnection | Connection
    on_write: OnWrite = "escalate"
    primary_reads: bool = True
    _reported: set[str] = dataclasses.field(default_factory=set)
    _has_reported_no_monitor: bool = False

    def report_write(self, *, endpoint: str, statement: str) -> None:
        """Report a write where a read was declared: by one warning for each endpoint, or as an error.

        Raises:
            WriteOnReplicaError: `on_write` is `raise`.

        """
        error = WriteOnReplicaError(endpoint=endpoint, statement=statement)
        if self.on_write == "raise":
            raise error
        if endpoint not in self._reported:
            self._reported.add(endpoint)
            logger.warning("%s Until then it costs an extra step to the primary.", error.message())

    def report_no_monitor(self) -> None:
        """Warn once that replicas are read while no monitor runs."""
        if not self._has_reported_no_monitor:
            self._has_reported_no_monitor = True
            logger.warning(
                "A replica is read and no monitor runs: lag is not measured, and a client may not see its own writes. "
                "In an application, call setup_replicas(app, container) or use ReplicasPlugin, and run its lifespan; "
                "elsewhere: async with Monitor(replica_engine), and with Monitor(replica_engine) in synchronous code."
            )

    def report_loss(self, *, server: str, error: BaseException, ejected: bool) -> None:
        """Log that a statement failed on a replica and is now run again elsewhere.

        Args:
            server: the name of the replica.
            error: the error of the statement.
            ejected: whether the replica is ejected because of it; that is a warning, a single statement is not.

        """
        level = logging.WARNING if ejected else logging.DEBUG
        logger.log(level, "%s failed a statement (%s): running it elsewhere.", server, reason_of(error))

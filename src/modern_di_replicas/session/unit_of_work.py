"""What the sessions of one unit of work share."""

import dataclasses
import threading
import typing
import weakref

from sqlalchemy.orm import InstanceState

from modern_di_replicas.cluster.engines.one_replica import OneReplicaRole
from modern_di_replicas.cluster.freshness import FreshRead
from modern_di_replicas.routing.decision import Decision


@dataclasses.dataclass(kw_only=True, slots=True)
class UnitOfWork:
    """Where the sessions of one unit of work read, so that all of them see the same state."""

    replica: OneReplicaRole | None = None
    """The replica they read from; None while none is known to be fresh enough."""
    escalation: Decision | None = None
    """Why one of them has moved to the primary; those that are opened after it begin there."""

    must_have: FreshRead | None = None
    """What each connection has to show, where the name of the replica leads to several servers."""

    lock: threading.RLock = dataclasses.field(default_factory=threading.RLock, repr=False)
    """Held while that is settled: in a synchronous application its sessions are in several threads."""

    stale: weakref.WeakSet[InstanceState[typing.Any]] = dataclasses.field(default_factory=weakref.WeakSet, repr=False)
    """The objects that one of them has read from the replica, and lost: another one may be given them."""

    @property
    def is_settled(self) -> bool:
        """Whether it is known where a session that begins now reads."""
        return self.replica is not None or self.escalation is not None

"""The shared state of the sessions of one unit of work."""

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
    """Why one of them has moved to the primary; later ones begin there."""

    must_have: FreshRead | None = None
    """The freshness that each connection has to prove, if the name of the replica leads to several servers."""

    lock: threading.RLock = dataclasses.field(default_factory=threading.RLock, repr=False)
    """Held while this state changes: in a synchronous application its sessions are in several threads."""

    stale: weakref.WeakSet[InstanceState[typing.Any]] = dataclasses.field(default_factory=weakref.WeakSet, repr=False)
    """Objects that left a session which had read them from the replica: they may be added to another one."""

    @property
    def is_settled(self) -> bool:
        """Whether the server of a new session is decided."""
        return self.replica is not None or self.escalation is not None

"""The pools of synchronous engines, which several threads use at once."""

from modern_di_replicas.cluster.background import background
from modern_di_replicas.cluster.pools.fenced import FencedQueuePool
from modern_di_replicas.cluster.pools.permits import ThreadedPermits
from modern_di_replicas.cluster.pools.replaceable import ReplaceableQueuePool


class ThreadedPool(ReplaceableQueuePool):
    """See `ReplaceablePool`."""

    _permits_class = ThreadedPermits
    _sqla_logger_namespace = "sqlalchemy.pool.impl.QueuePool"  # see `ReplaceablePool`


class ThreadedFencedPool(FencedQueuePool, ThreadedPool):
    """See `FencedPool`."""

    wait = staticmethod(background.run)

"""The pools of synchronous engines: they differ from the asynchronous ones where several threads use them at once."""

import contextlib
import typing

from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util.queue import Full

from modern_di_replicas.cluster.background import background
from modern_di_replicas.cluster.pools.fenced import FencedQueuePool
from modern_di_replicas.cluster.pools.replaceable import ReplaceableQueuePool, WakeUp


class ThreadedPool(ReplaceableQueuePool):
    """See `ReplaceablePool`."""

    _sqla_logger_namespace = "sqlalchemy.pool.impl.QueuePool"  # see `ReplaceablePool`

    @property
    def in_use(self) -> int:
        """How many of its connections are in use, as SQLAlchemy's queue counts them under its own lock."""
        return self.checkedout()

    @in_use.setter
    def in_use(self, count: int) -> None:
        pass

    def _wake_one(self) -> None:
        # Not `_do_return_conn`: where other threads have filled the queue meanwhile, that would free the place of a
        # connection that there is not. Only `_pool` can be asked to take an entry or leave it;
        # `tests/sync/test_pools.py` fails if this changes.
        if not self.checkedin():
            with contextlib.suppress(Full):
                self._pool.put(typing.cast(ConnectionPoolEntry, WakeUp()), block=False)


class ThreadedFencedPool(FencedQueuePool, ThreadedPool):
    """See `FencedPool`."""

    wait = staticmethod(background.run)

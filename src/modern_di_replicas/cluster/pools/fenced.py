"""The primary's pool, whose checkouts wait while the primary moves."""

import collections.abc
import typing

from sqlalchemy import PoolProxiedConnection
from sqlalchemy.util import await_only

from modern_di_replicas.cluster.failures import Failure, classify, note_failure
from modern_di_replicas.cluster.pools.fence import Fence
from modern_di_replicas.cluster.pools.outage import Outage
from modern_di_replicas.cluster.pools.replaceable import ReplaceablePool, ReplaceableQueuePool
from modern_di_replicas.errors import PrimaryUnavailable


RETRIES: typing.Final = 2
"""How often a checkout connects again after a change, at most: a primary may be lost repeatedly."""


class FencedQueuePool(ReplaceableQueuePool):
    """A pool behind a fence: checkouts that wait for a primary take no place in the pool's queue."""

    fence: Fence
    """Set by `PrimaryEngine`, before anything connects; so is `outage`."""
    outage: Outage
    wait: typing.ClassVar[collections.abc.Callable[..., typing.Any]]
    """Returns the result of a coroutine; see `wait_for`."""

    def connect_since(self, began: float) -> PoolProxiedConnection:
        fence, outage = self.fence, self.outage
        if fence.is_raised:
            self.wait(fence.passed())
        for _ in range(RETRIES):
            try:
                return super().connect_since(began)
            except Exception as error:
                if not outage.is_loss(error) or _is_applications(error):
                    raise
                if not fence.is_raised and self.wait(outage.ended(since=began)):
                    continue
                if not outage.is_down or isinstance(error, PrimaryUnavailable):
                    raise
                raise PrimaryUnavailable(reason=outage.reason) from error
        return super().connect_since(began)

    def recreate(self) -> "FencedQueuePool":
        pool = typing.cast(FencedQueuePool, super().recreate())
        pool.fence, pool.outage = self.fence, self.outage
        return pool


def _is_applications(error: Exception) -> bool:
    """Return whether a listener of the application has raised an error that does not concern the primary."""
    if isinstance(error, PrimaryUnavailable):
        return False
    if not isinstance(error, OSError):
        note_failure(error, Failure.LOST)  # the driver's, perhaps from a question on a new connection
    return classify(error) is Failure.OWN


class FencedPool(FencedQueuePool, ReplaceablePool):
    """The fenced pool of an asynchronous engine."""

    wait = staticmethod(await_only)

"""A fence before the pool of a former primary, until the new primary is known."""

import asyncio
import collections.abc
import time
import typing

from sqlalchemy import PoolProxiedConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.util import await_only

from modern_di_replicas.cluster.failures import Failure, blame, classify
from modern_di_replicas.cluster.pools.replaceable import ReplaceablePool, ReplaceableQueuePool
from modern_di_replicas.cluster.waiting import Signal
from modern_di_replicas.errors import PrimaryUnavailable


FORMER: typing.Final = (
    "it is on an older timeline than others, or belongs to another cluster, and no other primary is known"
)
RETRIES: typing.Final = 2
"""How often a checkout connects again after a change, at most: a primary may be lost repeatedly."""

SILENT: typing.Final = "it does not answer the monitor"


class Fence:
    """While raised, checkouts wait briefly for the new primary, and then fail; initially lifted.

    In a synchronous application checkouts are in many threads and the monitor in one: each attribute is read once and
    replaced as a whole, and a `Signal` wakes the waiting checkouts.
    """

    def __init__(self, lost_connection: tuple[type[Exception], ...] = (OSError,)) -> None:
        self._lost_connection: tuple[type[Exception], ...] = (OSError, *lost_connection)
        self.loss_timeout = 0.0
        """Seconds for which checkouts wait for a change when the primary has just been lost; 0 without a monitor."""
        self._lost_at: float | None = None
        self._changed = Signal()
        self._lifted = Signal()
        self._lifted.set()
        self._held_until = 0.0
        self._pause: float | None = None
        self._is_silent = False
        self.silence = SILENT
        """Why checkouts fail while the monitor gets no answer."""
        self._next_attempt = 0.0

    @property
    def is_raised(self) -> bool:
        return not self._lifted.is_set

    def is_loss(self, error: Exception) -> bool:
        """Return whether connecting failed because no server can be reached."""
        if isinstance(error, SQLAlchemyError):
            return False  # of another engine, in a listener
        # The adapter of SQLAlchemy 2.1 wraps asyncpg's errors, that of 2.0 does not.
        return isinstance(getattr(error, "driver_exception", error), self._lost_connection)

    def raise_fence(self, timeout: float) -> None:
        """Make checkouts wait; after `timeout` seconds they fail instead."""
        self._held_until = time.monotonic() + timeout
        self._lifted = Signal()

    def lift(self) -> None:
        """Let checkouts pass, including those that wait."""
        self._lifted.set()
        self._change()

    def forget_waiting(self) -> None:
        """Forget the checkouts that wait: in a forked process they are the parent's."""
        is_raised, self._changed, self._lifted = self.is_raised, Signal(), Signal()
        if not is_raised:
            self._lifted.set()

    def _change(self) -> None:
        changed, self._changed = self._changed, Signal()
        changed.set()

    async def may_try_again(self, began: float) -> bool:
        """Wait for the primary, or a new one, after it was lost; return whether to connect again.

        Args:
            began: when the checkout began. A checkout that has waited for a silent primary already does not wait again.

        """
        now = time.monotonic()
        self._lost_at = lost_at = self._lost_at or now
        if self._is_silent:
            lost_at = min(lost_at, began)
        left = lost_at + self.loss_timeout - now
        if self.is_raised or left <= 0:
            return False
        try:
            async with asyncio.timeout(left):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def passed(self) -> None:
        """Wait until it is lifted.

        Raises:
            PrimaryUnavailable: it was not lifted in time.

        """
        try:
            async with asyncio.timeout(self._held_until - time.monotonic()):
                await self._lifted.wait()
        except TimeoutError:
            self.check()

    def check(self) -> None:
        """Check that it is lifted.

        Raises:
            PrimaryUnavailable: it is raised.

        """
        if self.is_raised:
            raise PrimaryUnavailable(reason=FORMER)

    def declare_down(self, *, timeout: float, reason: str, is_silent: bool) -> None:
        """Let only one connection attempt through in `timeout` seconds: the monitor gets no answer."""
        self._is_silent = is_silent
        self.silence = f"{SILENT}: {reason}" if reason else SILENT
        if self._pause is None:
            self._next_attempt = 0.0
        self._pause = timeout

    def declare_up(self) -> None:
        """Let every connection attempt through."""
        self._pause = self._lost_at = None
        self._is_silent = False
        self._change()

    @property
    def is_down(self) -> bool:
        """Whether the monitor gets no answer."""
        return self._pause is not None

    def attempt(self) -> bool:
        """Count a connection attempt; return whether it is one to a server that does not answer the monitor.

        Raises:
            PrimaryUnavailable: it has to wait; or the fence is raised.

        """
        self.check()
        if (pause := self._pause) is None:
            return False
        now = time.monotonic()
        if now < self._next_attempt:
            raise PrimaryUnavailable(reason=self.silence)
        self._next_attempt = now + pause
        return True


class FencedQueuePool(ReplaceableQueuePool):
    """A pool behind a fence: checkouts that wait at the fence take no place in the pool's queue."""

    fence: Fence
    """Set by `PrimaryEngine`, before anything connects."""
    wait: typing.ClassVar[collections.abc.Callable[..., typing.Any]]
    """Returns the result of a coroutine; see `wait_for`."""

    def connect_since(self, began: float) -> PoolProxiedConnection:
        fence = self.fence
        if fence.is_raised:
            self.wait(fence.passed())
        for _ in range(RETRIES):
            try:
                return super().connect_since(began)
            except Exception as error:
                if not fence.is_loss(error) or _is_applications(error):
                    raise
                if self.wait(fence.may_try_again(began)):
                    continue
                if not fence.is_down or isinstance(error, PrimaryUnavailable):
                    raise
                raise PrimaryUnavailable(reason=fence.silence) from error
        return super().connect_since(began)

    def recreate(self) -> "FencedQueuePool":
        pool = typing.cast(FencedQueuePool, super().recreate())
        pool.fence = self.fence
        return pool


def _is_applications(error: Exception) -> bool:
    """Return whether a listener of the application has raised an error that says nothing of the primary."""
    if isinstance(error, PrimaryUnavailable):
        return False
    if not isinstance(error, OSError):
        blame(error, Failure.LOST)  # the driver's, perhaps from a question on a new connection
    return classify(error) is Failure.OWN


class FencedPool(FencedQueuePool, ReplaceablePool):
    """The fenced pool of an asynchronous engine."""

    wait = staticmethod(await_only)

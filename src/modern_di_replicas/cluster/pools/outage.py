"""An outage of the primary: checkouts wait for its end if that is near, and fail fast otherwise."""

import asyncio
import time
import typing

from sqlalchemy.exc import SQLAlchemyError

from modern_di_replicas.cluster.waiting import Signal
from modern_di_replicas.errors import PrimaryUnavailable


SILENT: typing.Final = "it does not answer the monitor"


class Outage:
    """What the failed connection attempts of checkouts and the monitor say of the primary; initially it is up.

    The first checkouts that fail to connect wait for a change, because a failover may be under way. Once the monitor
    has declared the primary down, only one attempt at a time reaches it.

    As in a `Fence`, each attribute is read once and replaced as a whole.

    Args:
        lost_connection: the driver's errors, besides `OSError`, when no server can be reached.

    """

    def __init__(self, lost_connection: tuple[type[Exception], ...] = ()) -> None:
        self._lost_connection: tuple[type[Exception], ...] = (OSError, *lost_connection)
        self.timeout = 0.0
        """Seconds for which checkouts wait for a change when the primary has just been lost; 0 without a monitor."""
        self._began_at: float | None = None
        self._changed = Signal()
        self._pause: float | None = None
        self._next_attempt = 0.0
        self._is_silent = False
        self.reason = SILENT
        """Why checkouts fail while the monitor gets no answer."""

    def is_loss(self, error: Exception) -> bool:
        """Return whether connecting failed because no server can be reached."""
        if isinstance(error, SQLAlchemyError):
            return False  # of another engine, in a listener
        # The adapter of SQLAlchemy 2.1 wraps asyncpg's errors, that of 2.0 does not.
        return isinstance(getattr(error, "driver_exception", error), self._lost_connection)

    @property
    def is_down(self) -> bool:
        """Whether the monitor gets no answer."""
        return self._pause is not None

    def declare_down(self, *, timeout: float, reason: str, is_silent: bool) -> None:
        """Let only one connection attempt through in `timeout` seconds: the monitor gets no answer."""
        self._is_silent = is_silent
        self.reason = f"{SILENT}: {reason}" if reason else SILENT
        if self._pause is None:
            self._next_attempt = 0.0
        self._pause = timeout

    def declare_up(self) -> None:
        """Let every connection attempt through, including those of checkouts that wait."""
        self._pause = self._began_at = None
        self._is_silent = False
        changed, self._changed = self._changed, Signal()
        changed.set()

    def forget_waiting(self) -> None:
        """Forget the checkouts that wait: in a forked process they are the parent's."""
        self._changed = Signal()

    async def ended(self, since: float) -> bool:
        """Wait for the primary, or a new one, after it was lost; return whether to connect again.

        Args:
            since: when the checkout began. A checkout that has waited for a silent primary does not wait again.

        """
        now = time.monotonic()
        self._began_at = began_at = self._began_at or now
        if self._is_silent:
            began_at = min(began_at, since)
        left = began_at + self.timeout - now
        if left <= 0:
            return False
        try:
            async with asyncio.timeout(left):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def attempt(self) -> bool:
        """Count a connection attempt; return whether it is one to a server that does not answer the monitor.

        Raises:
            PrimaryUnavailable: it has to wait.

        """
        if (pause := self._pause) is None:
            return False
        now = time.monotonic()
        if now < self._next_attempt:
            raise PrimaryUnavailable(reason=self.reason)
        self._next_attempt = now + pause
        return True

"""A fence before the primary's pool: the server is a former primary, and the new one is not known yet."""

import asyncio
import time
import typing

from modern_di_replicas.cluster.waiting import Signal
from modern_di_replicas.errors import PrimaryUnavailable


FORMER: typing.Final = (
    "it is on an older timeline than others, or belongs to another cluster, and no other primary is known"
)


class Fence:
    """While raised, checkouts wait briefly for the new primary, and then fail; initially lifted.

    In a synchronous application checkouts are in many threads and the monitor in one: each attribute is read once and
    replaced as a whole, and a `Signal` wakes the waiting checkouts.
    """

    def __init__(self) -> None:
        self._lifted = Signal()
        self._lifted.set()
        self._held_until = 0.0

    @property
    def is_raised(self) -> bool:
        return not self._lifted.is_set

    def raise_fence(self, timeout: float) -> None:
        """Make checkouts wait; after `timeout` seconds they fail instead."""
        self._held_until = time.monotonic() + timeout
        self._lifted = Signal()

    def lift(self) -> None:
        """Let checkouts pass, including those that wait."""
        self._lifted.set()

    def forget_waiting(self) -> None:
        """Forget the checkouts that wait: in a forked process they are the parent's."""
        is_raised, self._lifted = self.is_raised, Signal()
        if not is_raised:
            self._lifted.set()

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

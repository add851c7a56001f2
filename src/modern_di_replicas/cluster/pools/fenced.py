"""A fence before the pool of a former primary, until the new primary is known."""

import asyncio
import time
import typing

from sqlalchemy import PoolProxiedConnection
from sqlalchemy.util import await_only

from modern_di_replicas.cluster.pools.replaceable import ReplaceablePool


class Fence:
    """While raised, checkouts wait briefly for the new primary, and then fail; initially lifted."""

    def __init__(self) -> None:
        self._is_down = asyncio.Event()
        self._is_down.set()
        self._held_until = 0.0

    @property
    def is_up(self) -> bool:
        return not self._is_down.is_set()

    def raise_fence(self, timeout: float) -> None:
        """Make checkouts wait; after `timeout` seconds they fail instead."""
        self._is_down = asyncio.Event()
        self._held_until = time.monotonic() + timeout

    def lift(self) -> None:
        """Let checkouts pass, including those that wait."""
        self._is_down.set()

    async def passed(self) -> None:
        """Wait until it is down.

        Raises:
            ConnectionRefusedError: it was not taken down in time.

        """
        try:
            async with asyncio.timeout(self._held_until - time.monotonic()):
                await self._is_down.wait()
        except TimeoutError:
            self.check()

    def check(self) -> None:
        """Check that it is down.

        Raises:
            ConnectionRefusedError: it is up.

        """
        if self.is_up:
            msg = "the server that was the primary is on an older timeline than others, and no other primary is known"
            raise ConnectionRefusedError(msg)


class FencedPool(ReplaceablePool):
    """A pool with a fence before it: checkouts that wait at the fence take no place in the pool's queue."""

    fence: Fence | None = None

    def connect(self) -> PoolProxiedConnection:
        if self.fence is not None and self.fence.is_up:
            await_only(self.fence.passed())
        return super().connect()

    def recreate(self) -> "FencedPool":
        pool = typing.cast(FencedPool, super().recreate())
        pool.fence = self.fence
        return pool

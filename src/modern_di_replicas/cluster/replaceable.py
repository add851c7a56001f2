"""A pool that sends those who wait for it on to the pool that took its place."""

import typing

from sqlalchemy import AsyncAdaptedQueuePool, PoolProxiedConnection
from sqlalchemy.pool import ConnectionPoolEntry


class ReplaceablePool(AsyncAdaptedQueuePool):
    """A pool that makes no connection any more once it was replaced.

    An engine replaces its pool when all its connections are terminated. Whoever waits for one of the old pool would
    connect there: beyond the limit of the new one, and the connection would be kept by nobody.
    """

    _successor: "ReplaceablePool | None" = None

    def connect(self) -> PoolProxiedConnection:
        if self._successor is not None:
            return self._successor.connect()
        try:
            return super().connect()
        except _ReplacedError as replaced:
            successor = replaced.successor
        return successor.connect()

    def recreate(self) -> "ReplaceablePool":
        self._successor = typing.cast(ReplaceablePool, super().recreate())
        return self._successor

    def _do_get(self) -> ConnectionPoolEntry:  # what a subclass of `Pool` supplies
        entry = super()._do_get()
        if self._successor is None:
            return entry
        self._do_return_conn(entry)  # to the next one who waits here
        raise _ReplacedError(self._successor)


class _ReplacedError(Exception):
    def __init__(self, successor: ReplaceablePool) -> None:
        super().__init__()
        self.successor = successor

"""Commits that are interrupted, in a worker: their answer is lost, or the request is cancelled as they are sent."""

import asyncio
import contextlib
import contextvars
import random
import typing

import asyncpg


Interruption = typing.Literal["", "lost", "cancelled"]

_interruption: contextvars.ContextVar[tuple[Interruption, asyncio.Timeout] | None] = contextvars.ContextVar(
    "interruption", default=None
)


@contextlib.asynccontextmanager
async def interrupted(interruption: Interruption) -> typing.AsyncIterator[None]:
    """Interrupt the commit in this block, if that is asked for."""
    async with asyncio.timeout(None) as limit:
        token = _interruption.set((interruption, limit) if interruption else None)
        try:
            yield
        finally:
            _interruption.reset(token)


class InterruptedConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    async def execute(self, query: str, *args: typing.Any, timeout: float | None = None) -> str:  # noqa: ASYNC109  # asyncpg's signature
        found = _interruption.get() if query == "COMMIT;" else None
        if found is None:
            return typing.cast(str, await super().execute(query, *args, timeout=timeout))
        interruption, limit = found
        if interruption == "cancelled":
            limit.reschedule(asyncio.get_running_loop().time() + random.random() * 0.002)  # noqa: S311  # for variety
            return typing.cast(str, await super().execute(query, *args, timeout=timeout))
        await super().execute(query, *args, timeout=timeout)
        self.terminate()
        msg = "the connection was lost before the answer came"
        raise ConnectionResetError(msg)

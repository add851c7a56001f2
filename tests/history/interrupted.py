"""Interrupted commits in a worker: their response is lost, or the request is cancelled while they are sent."""

import asyncio
import contextlib
import contextvars
import random
import typing

import asyncpg
import psycopg


Interruption = typing.Literal["", "lost", "cancelled"]

LOST: typing.Final = "the connection was lost before the answer came"

_interruption: contextvars.ContextVar[tuple[Interruption, asyncio.Timeout] | None] = contextvars.ContextVar(
    "interruption", default=None
)


@contextlib.asynccontextmanager
async def interrupted(interruption: Interruption) -> typing.AsyncIterator[None]:
    """Interrupt the commit in this block if the request asks for it."""
    async with asyncio.timeout(None) as limit:
        token = _interruption.set((interruption, limit) if interruption else None)
        try:
            yield
        finally:
            _interruption.reset(token)


class InterruptedAsyncpg(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    async def execute(self, query: str, *args: typing.Any, timeout: float | None = None) -> str:  # noqa: ASYNC109  # asyncpg's signature
        found = _interruption.get() if query == "COMMIT;" else None
        if found is None:
            return typing.cast(str, await super().execute(query, *args, timeout=timeout))
        _cancel_soon(*found)
        status = typing.cast(str, await super().execute(query, *args, timeout=timeout))
        if found[0] == "lost":
            self.terminate()
            raise ConnectionResetError(LOST)
        return status


_commit: typing.Final = psycopg.AsyncConnection.commit


async def _commit_interrupted(connection: psycopg.AsyncConnection[typing.Any]) -> None:
    found = _interruption.get()
    if found is not None:
        _cancel_soon(*found)
    await _commit(connection)
    if found is not None and found[0] == "lost":
        connection.pgconn.finish()
        raise psycopg.OperationalError(LOST)


def _cancel_soon(interruption: Interruption, limit: asyncio.Timeout) -> None:
    if interruption == "cancelled":
        limit.reschedule(asyncio.get_running_loop().time() + random.random() * 0.002)  # noqa: S311  # for variety


def interrupt_commits(url: str) -> dict[str, typing.Any]:
    """Return `connect_args` with interruptible connections; psycopg accepts no class, so its own is changed."""
    if "asyncpg" in url:
        return {"connection_class": InterruptedAsyncpg}
    psycopg.AsyncConnection.commit = _commit_interrupted  # type: ignore[assignment,method-assign]  # in a separate process
    return {}

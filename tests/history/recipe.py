"""Hand-written routing: replicas in turn for reads and, at best, the primary for a while after a write."""

import collections.abc
import contextlib
import itertools
import time
import typing

import fastapi
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


COOKIE: typing.Final = "pinned-until"


class Recipe:
    """Chooses the engine of a request by its method.

    Args:
        primary: the URL of the primary.
        replicas: the URLs of the replicas.
        pin: seconds for which a client reads from the primary after its write; 0 for none.
        pool_size: connections to each server.

    """

    def __init__(self, primary: str, replicas: collections.abc.Iterable[str], *, pin: float, pool_size: int) -> None:
        self._primary = create_async_engine(primary, pool_size=pool_size)
        self._replicas = [create_async_engine(url, pool_size=pool_size) for url in replicas]
        self._turns = itertools.cycle(self._replicas)
        self._pin = pin

    def engine(self, request: fastapi.Request) -> AsyncEngine:
        """Return the primary's engine for a write and while its client is pinned; else that of the next replica."""
        is_pinned = time.time() < float(request.cookies.get(COOKIE, 0))
        return self._primary if request.method == "POST" or is_pinned else next(self._turns)

    def wrote(self, response: fastapi.Response) -> None:
        """Pin the client of a write."""
        if self._pin:
            response.set_cookie(COOKIE, str(time.time() + self._pin))

    @contextlib.asynccontextmanager
    async def lifespan(self, _: fastapi.FastAPI) -> collections.abc.AsyncIterator[None]:
        yield
        for engine in (self._primary, *self._replicas):
            await engine.dispose()

"""Connections that are being opened, so that the attempts can be given up."""

import asyncio
import collections.abc
import contextlib
import functools
import threading
import typing


Create = collections.abc.Callable[..., collections.abc.Awaitable[typing.Any]]


class TerminatedWhileOpeningError(ConnectionAbortedError):
    """All connections of an engine were terminated while one was being opened; nothing was sent on it."""

    def __init__(self) -> None:
        super().__init__("the connection was terminated while it was being opened")


class Opening:
    """The attempts of one engine. With a frozen server, an attempt would last until its timeout."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attempts: dict[object, collections.abc.Callable[[], object]] = {}

    @contextlib.contextmanager
    def attempt(self, give_up: collections.abc.Callable[[], object]) -> collections.abc.Iterator[None]:
        """Register an attempt.

        Args:
            give_up: ends it, with `TerminatedWhileOpeningError`; called in any thread.

        """
        key = object()
        with self._lock:
            self._attempts[key] = give_up
        try:
            yield
        finally:
            with self._lock:
                del self._attempts[key]

    def give_up(self) -> None:
        """Give up all of them."""
        with self._lock:
            attempts = list(self._attempts.values())
        for give_up in attempts:
            give_up()

    def watched(self, create: Create) -> Create:
        """Wrap the `connect` of an asynchronous driver, so that an attempt can be given up."""

        async def connect(*args: typing.Any, **arguments: typing.Any) -> typing.Any:  # noqa: ANN401
            loop = asyncio.get_running_loop()
            has_ended = False

            def expire() -> None:
                if not has_ended:
                    limit.reschedule(loop.time())

            try:
                async with asyncio.timeout(None) as limit:
                    try:
                        with self.attempt(functools.partial(loop.call_soon_threadsafe, expire)):
                            return await create(*args, **arguments)
                    finally:
                        has_ended = True
            except TimeoutError:
                if limit.expired():
                    raise TerminatedWhileOpeningError from None
                raise

        return connect

"""Resolve the names of servers before the driver does, so that a slow name does not delay others.

The event loop resolves names in its executor, which has few threads: each attempt with a name that hangs occupies one,
and soon no connection can be made. So a name is resolved here first, in its own thread, once at a time. The driver
still gets the name, because TLS checks the certificate against it, and resolves it again.
"""

import asyncio
import collections.abc
import contextlib
import dataclasses
import ipaddress
import os
import socket
import threading
import time
import typing


FIRST_PAUSE: typing.Final = 0.5
LONGEST_PAUSE: typing.Final = 10.0
"""Seconds in which a name that could not be found is not looked up again, at first and at most."""


@dataclasses.dataclass(slots=True)
class _LookUp:
    began: float = 0.0
    waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = dataclasses.field(default_factory=list)
    is_running: bool = False
    failure: OSError | None = None
    pause: float = 0.0
    tried: float = 0.0


class Names:
    """The name resolution of one process."""

    def __init__(self) -> None:
        self.forget()
        # A forked process does not have the parent's threads, and one of them may have held the lock.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Clear the state."""
        self._lock = threading.Lock()
        self._known: dict[str, _LookUp] = {}

    async def find(self, hosts: object, *, timeout: float) -> None:  # noqa: ASYNC109  # of all hosts together
        """Wait until the names of a server are resolved, if it has any.

        Args:
            hosts: a host, several with commas between them, or a list of them; None for the driver's default.
            timeout: seconds.

        Raises:
            TimeoutError: a name is not resolved in time.
            OSError: a name does not exist.

        """
        given = hosts.split(",") if isinstance(hosts, str) else hosts
        if not isinstance(given, collections.abc.Iterable):
            return
        for host in given:
            if isinstance(host, str) and is_name(host):
                await self._find(host, timeout)

    async def _find(self, host: str, timeout: float) -> None:  # noqa: ASYNC109
        loop = asyncio.get_running_loop()
        found: asyncio.Future[None] = loop.create_future()
        with self._lock:
            known, now = self._known.setdefault(host, _LookUp()), time.monotonic()
            if known.failure is not None and now - known.tried < known.pause:
                raise type(known.failure)(*known.failure.args)
            if known.is_running and now - known.began >= timeout:
                raise _too_slow(host)  # the first look-up has waited as long already
            known.waiting.append((loop, found))
            if not known.is_running:
                known.is_running, known.began = True, now
                # A daemon, because a look-up cannot be cancelled, and must not delay the end of the program.
                threading.Thread(target=self._look_up, args=(host, known), name=f"look-up {host}", daemon=True).start()
        done, _ = await asyncio.wait({found}, timeout=timeout)
        if not done:
            raise _too_slow(host)
        found.result()

    def _look_up(self, host: str, known: _LookUp) -> None:
        failure: OSError | None = None
        try:
            socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            failure = error
        with self._lock:
            known.is_running, known.failure, known.tried = False, failure, time.monotonic()
            known.pause = 0.0 if failure is None else min(known.pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
            waiting, known.waiting = known.waiting, []
        for loop, found in waiting:
            with contextlib.suppress(RuntimeError):  # its loop was closed meanwhile
                loop.call_soon_threadsafe(_settle, found, failure)


def _settle(found: asyncio.Future[None], failure: OSError | None) -> None:
    if failure is None:
        found.set_result(None)
    else:
        found.set_exception(type(failure)(*failure.args))
        found.exception()  # the caller may have given up


def _too_slow(host: str) -> TimeoutError:
    return TimeoutError(f"the name {host} is not found in time")


def is_name(host: str) -> bool:
    """Return whether a host is a name that has to be resolved."""
    if not host or host.startswith(("/", "@")):
        return False
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return True
    return False


names: typing.Final = Names()
"""The name resolution of this process."""

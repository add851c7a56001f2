"""The sockets of connections: their state, and their timeout for acknowledgements."""

import collections.abc
import contextlib
import enum
import math
import os
import select
import socket
import typing


class Idle(enum.Enum):
    """The state of an idle connection."""

    QUIET = "nothing has arrived"
    READABLE = "bytes have arrived: a notification, or the last message"
    DEAD = "it has ended"


class IdleSocket:
    """The socket of a pooled connection. It is checked before each use, so the check is prepared once.

    Args:
        descriptor: its file descriptor, which must be open during a check.

    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def check(self) -> Idle:
        """Return its state, without reading from it."""
        if not self._poll.poll(0):
            return Idle.QUIET
        try:
            with _duplicated(self._descriptor) as duplicate:
                return Idle.READABLE if duplicate.recv(1, socket.MSG_PEEK) else Idle.DEAD
        except BlockingIOError:  # between the two calls it was read
            return Idle.QUIET
        except OSError:  # an error, or a closed descriptor
            return Idle.DEAD


def limit_silence(descriptor: int, *, seconds: float) -> None:
    """Let the operating system close a TCP connection whose peer acknowledges nothing for some seconds.

    A statement to a host that is gone would otherwise wait for minutes. The host of a busy or frozen server still
    acknowledges.
    """
    whole = max(1, math.ceil(seconds))
    options = {
        "TCP_USER_TIMEOUT": whole * 1000,
        "TCP_KEEPIDLE": whole,
        "TCP_KEEPINTVL": max(1, whole // 3),
        "TCP_KEEPCNT": 3,
    }
    with contextlib.suppress(OSError), _duplicated(descriptor) as duplicate:  # a Unix socket has none
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            option: int | None = getattr(socket, name, None)
            if option is not None:
                duplicate.setsockopt(socket.IPPROTO_TCP, option, value)


def leave_to_parent(descriptors: collections.abc.Iterable[int]) -> None:
    """Replace sockets that a forked process has inherited: writing to them fails, and does not reach the server.

    Otherwise closing a session that was open at the fork would roll back the parent's transaction, and the connections
    of a killed parent would stay open as long as its children live.
    """
    ours, theirs = socket.socketpair()
    theirs.close()  # so that a read returns the end of the stream, as after a close by the server
    with ours:
        for descriptor in descriptors:
            os.dup2(ours.fileno(), descriptor, inheritable=False)


@contextlib.contextmanager
def _duplicated(descriptor: int) -> typing.Iterator[socket.socket]:
    """Yield a socket object for a descriptor without taking ownership."""
    with socket.socket(fileno=os.dup(descriptor)) as duplicate:
        yield duplicate

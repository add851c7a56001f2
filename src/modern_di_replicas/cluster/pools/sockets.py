"""What the operating system knows of a connection, and how long it may be silent."""

import collections.abc
import contextlib
import enum
import math
import os
import select
import socket
import typing


class Idle(enum.Enum):
    """What an idle connection looks like from our side."""

    QUIET = "nothing has arrived"
    READABLE = "bytes have arrived: a notification, or the last message"
    DEAD = "it has ended"


class IdleSocket:
    """The socket of a pooled connection, which is looked at before each use: so what can be is prepared.

    Args:
        descriptor: its file descriptor, which is open as long as it is looked at.

    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def look(self) -> Idle:
        """Return what has arrived on it, without reading it."""
        if not self._poll.poll(0):
            return Idle.QUIET
        try:
            with _duplicated(self._descriptor) as duplicate:
                return Idle.READABLE if duplicate.recv(1, socket.MSG_PEEK) else Idle.DEAD
        except BlockingIOError:  # between the two calls it was read
            return Idle.QUIET
        except OSError:  # an error, or no socket any more
            return Idle.DEAD


def limit_silence(descriptor: int, *, seconds: float) -> None:
    """Have the operating system end a TCP connection whose peer does not acknowledge anything for so long.

    A statement that was sent into the void would otherwise wait for minutes. A server that is busy, or frozen, still
    acknowledges.
    """
    whole = max(1, math.ceil(seconds))
    options = {
        "TCP_USER_TIMEOUT": whole * 1000,
        "TCP_KEEPIDLE": whole,
        "TCP_KEEPINTVL": max(1, whole // 3),
        "TCP_KEEPCNT": 3,
    }
    with contextlib.suppress(OSError), _duplicated(descriptor) as duplicate:  # a Unix socket has none of them
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            option: int | None = getattr(socket, name, None)
            if option is not None:
                duplicate.setsockopt(socket.IPPROTO_TCP, option, value)


def leave_to_parent(descriptors: collections.abc.Iterable[int]) -> None:
    """Replace sockets that a forked process has inherited: what is sent there fails, and does not reach the server.

    Otherwise the end of a session that was open at the fork would roll the parent's transaction back, and connections
    of a parent that was killed would last as long as its children.
    """
    ours, theirs = socket.socketpair()
    theirs.close()  # so that a read sees the end, as on a connection that the server has closed
    with ours:
        for descriptor in descriptors:
            os.dup2(ours.fileno(), descriptor, inheritable=False)


@contextlib.contextmanager
def _duplicated(descriptor: int) -> typing.Iterator[socket.socket]:
    """Give a socket object for a descriptor that belongs to somebody else, who closes it."""
    with socket.socket(fileno=os.dup(descriptor)) as duplicate:
        yield duplicate

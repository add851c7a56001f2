"""A resolver with host names that hang and host names that do not exist."""

import collections
import socket
import threading
import typing

import pytest


class Resolver:
    """Replaces the system's resolver.

    Names that begin with `slow` hang, those that begin with `no` do not exist. Names that hang do not exist either,
    except for those that end with `.test`, which are this machine.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.released = threading.Event()
        self.asked: collections.Counter[str] = collections.Counter()
        self.running: collections.Counter[str] = collections.Counter()
        self.most: collections.Counter[str] = collections.Counter()
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self.look_up)

    def look_up(self, host: typing.Any, *args: typing.Any, **options: typing.Any) -> typing.Any:
        name = str(host)
        self.asked[name] += 1
        if name.startswith("slow"):
            self.running[name] += 1
            self.most[name] = max(self.most[name], self.running[name])
            self.released.wait(60)
            self.running[name] -= 1
        if name.endswith(".test"):
            return self._real("127.0.0.1", *args, **options)
        if name.startswith(("slow", "no")):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self._real(host, *args, **options)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> typing.Iterator[Resolver]:
    resolver = Resolver(monkeypatch)
    yield resolver
    resolver.released.set()

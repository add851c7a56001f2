"""The faults that `demo --serve` offers, by name."""

import asyncio
import collections.abc
import typing

from modern_di_replicas.testing import LocalCluster, LocalServer


Fault = typing.Literal["freeze", "thaw", "crash", "start", "lag", "resume", "promote"]

MEANINGS: typing.Final[dict[Fault, str]] = {
    "freeze": "hang: connections stay open, nothing answers",
    "thaw": "resume after a freeze",
    "crash": "stop at once, without a shutdown",
    "start": "start again after a crash",
    "lag": "a replica stops replaying what the primary writes",
    "resume": "replay again",
    "promote": "a replica becomes the primary; all others follow it",
}


class NotPossibleError(Exception):
    """The server is not in a state for this fault, or there is no such server or fault."""


class Faults:
    """Breaks and repairs the servers of a cluster, one fault or repair at a time.

    Args:
        cluster: a running cluster.

    """

    def __init__(self, cluster: LocalCluster) -> None:
        self.primary = cluster.primary.name
        """The name of the server that was promoted last; the primary, unless that one is broken."""
        self.doing = ""
        """The current fault or repair; empty without one."""
        self._servers = {server.name: server for server in cluster.servers}
        self._held: set[str] = set()
        self._lock = asyncio.Lock()
        self._actions: dict[Fault, collections.abc.Callable[[LocalServer], None]] = {
            "freeze": lambda server: server.freeze(),
            "thaw": lambda server: server.thaw(),
            "crash": self._crash,
            "start": lambda server: server.start(),
            "lag": self._lag,
            "resume": self._resume,
            "promote": self._promote,
        }

    @property
    def servers(self) -> collections.abc.Collection[LocalServer]:
        return self._servers.values()

    def state(self, name: str) -> str:
        """Return the state of a server: `running`, `frozen`, `crashed` or `replay held`."""
        server = self._servers[name]
        if server.is_frozen():
            return "frozen"
        if not server.is_running():
            return "crashed"
        return "replay held" if name in self._held else "running"

    def possible(self, name: str) -> tuple[Fault, ...]:
        """Return the faults and repairs that are possible in the state of a server."""
        state = self.state(name)
        if state == "crashed":
            return ("start",)
        if state == "frozen":
            return ("thaw", "crash")
        if name == self.primary:
            return ("freeze", "crash")
        return ("freeze", "crash", "resume" if state == "replay held" else "lag", "promote")

    def candidates(self, fault: str) -> list[str]:
        """Return the servers for which a fault or repair is possible now."""
        return [name for name in self._servers if fault in self.possible(name)]

    async def commit(self, fault: str, name: str) -> None:
        """Perform a fault or repair on a server, after the current one.

        Raises:
            NotPossibleError: it is not possible now, or unknown; the message lists the possible ones.
            ServerFailedError: an operation failed on a server.

        """
        self._check_known(fault, name)
        async with self._lock:
            possible = self.possible(name)
            if fault not in possible:
                msg = f"{name} is {self.state(name)}: {_joined(possible)} is possible there"
                raise NotPossibleError(msg)
            self.doing = f"{fault} {name}"
            try:
                await asyncio.to_thread(self._actions[fault], self._servers[name])
            finally:
                self.doing = ""

    def _check_known(self, fault: str, name: str) -> None:
        if fault not in MEANINGS:
            msg = f"{fault!r} is unknown: choose {_joined(MEANINGS)}"
            raise NotPossibleError(msg)
        if name not in self._servers:
            msg = f"There is no server {name!r}: choose {_joined(self._servers)}"
            raise NotPossibleError(msg)

    def _crash(self, server: LocalServer) -> None:
        self._held.discard(server.name)  # a start replays
        server.stop("immediate")

    def _lag(self, server: LocalServer) -> None:
        server.pause_replay()
        self._held.add(server.name)

    def _resume(self, server: LocalServer) -> None:
        server.resume_replay()
        self._held.discard(server.name)

    def _promote(self, server: LocalServer) -> None:
        """Move the primary: stop the former one, promote this server, and make all others its standbys."""
        self._resume(server)
        self._servers[self.primary].stop()
        server.promote()
        former, self.primary = self.primary, server.name
        # The replicas first: until one of them follows, the new primary serves every read.
        for name in sorted(self._servers.keys() - {server.name}, key=lambda name: name == former):
            self._servers[name].follow(server)
            self._held.discard(name)


def _joined(names: collections.abc.Iterable[str]) -> str:
    return ", ".join(names)

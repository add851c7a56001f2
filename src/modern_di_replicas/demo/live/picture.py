"""The state of the topology for the page."""

import dataclasses
import typing

from sqlalchemy.pool import QueuePool

from modern_di_replicas import PrimaryEngine, ReplicaEngine
from modern_di_replicas.demo.faults import Faults
from modern_di_replicas.demo.live.requests import Requests
from modern_di_replicas.routing.snapshot import ServerState
from modern_di_replicas.servers import DEFAULT_GROUP
from modern_di_replicas.testing import LocalServer


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class ServerPicture:
    """The state of one server."""

    name: str
    port: int
    state: str
    """Its fault; see `Faults.state`."""
    faults: tuple[str, ...]
    """The possible faults and repairs."""
    role: str
    """Its role, as seen by the application."""
    up: bool
    """Whether it answers the monitor of the application."""
    serves_reads: bool
    """Whether the application reads from it as a replica."""
    lag_seconds: float | None
    """None if unknown."""
    lag_bytes: int | None
    in_use: int
    """Connections of the application that are in use."""
    answered: int
    """Requests that it has answered."""


class Picture:
    """The servers as seen by the application, their faults, and the results of the requests.

    Args:
        faults: breaks and repairs the servers.
        requests: the counters.
        primary: the engine of the application.
        replicas: the engine of the application.

    """

    def __init__(self, *, faults: Faults, requests: Requests, primary: PrimaryEngine, replicas: ReplicaEngine) -> None:
        self._faults = faults
        self._requests = requests
        self._primary = primary
        self._replicas = replicas

    def servers(self) -> list[ServerPicture]:
        """Return the state of each server."""
        snapshot = self._replicas.snapshot
        states = {} if snapshot is None else snapshot.servers
        leader = None if snapshot is None else snapshot.primary
        serving = {server.name for server in self._replicas.topology.serving(DEFAULT_GROUP)}
        return [
            ServerPicture(
                name=server.name,
                port=server.port,
                state=self._faults.state(server.name),
                faults=self._faults.possible(server.name),
                role=state.role.value,
                up=state.up,
                serves_reads=label in serving,
                lag_seconds=state.lag_seconds,
                lag_bytes=state.lag_bytes,
                in_use=self._in_use(label, is_leader=label == leader),
                answered=self._requests.answered[server.name],
            )
            for server in self._faults.servers
            for label in [self._label(server)]
            for state in [states.get(label, ServerState(name=label))]
        ]

    def as_json(self) -> dict[str, typing.Any]:
        """Return the data of the page."""
        return {
            "servers": [dataclasses.asdict(server) for server in self.servers()],
            "doing": self._faults.doing,
            "failed": {intent: self._requests.failed[intent] for intent in ("read", "write")},
            "recent": list(self._requests.recent),
            "decisions": [dataclasses.asdict(line) for line in self._requests.lines],
        }

    def _label(self, server: LocalServer) -> str:
        """Return the application's name of a server: the primary is declared without one."""
        address = f"{server.host}:{server.port}"
        return address if address in self._replicas.engines else server.name

    def _in_use(self, label: str, *, is_leader: bool) -> int:
        pool = typing.cast(QueuePool, self._replicas.engines[label].pool)
        return pool.checkedout() + (self._primary.in_use if is_leader else 0)

"""One picture of the topology; the servers are stand-ins, and the snapshot is synthetic."""

import types
import typing

from modern_di_replicas import Replica, Role, ServerState, Snapshot
from modern_di_replicas.demo.faults import Faults
from modern_di_replicas.demo.live.picture import Picture
from modern_di_replicas.demo.live.requests import Requests
from tests.unconnected import URL, engines


PRIMARY = "db-1.invalid:5432"


class Broken:
    """A primary and a replica, which is frozen."""

    doing = "thaw replica-1"

    def __init__(self) -> None:
        self.servers = [
            types.SimpleNamespace(name="primary", host="db-1.invalid", port=5432),
            types.SimpleNamespace(name="replica-1", host="db-2.invalid", port=5433),
        ]

    def state(self, name: str) -> str:
        return "frozen" if name == "replica-1" else "running"

    def possible(self, name: str) -> tuple[str, ...]:
        return ("thaw",) if name == "replica-1" else ("freeze",)


def picture(snapshot: Snapshot | None) -> Picture:
    primary, replicas = engines(Replica(URL.format("db-2"), "replica-1"))
    replicas.topology.publish(snapshot)
    typing.cast(typing.Any, primary.pool).permits.in_use = 2
    requests = Requests({5432: "primary", 5433: "replica-1"}, clock=lambda: 1.0)
    requests.note_answer("GET /users", port=5433, reason="GET")
    requests.note_failure("POST /users", intent="write", reason="status 500")
    return Picture(faults=typing.cast(Faults, Broken()), requests=requests, primary=primary, replicas=replicas)


def test_it_combines_faults_snapshot_and_answers() -> None:
    """The primary is declared without a name, so its address is shown."""
    states = {
        PRIMARY: ServerState(name=PRIMARY, up=True, role=Role.PRIMARY, lsn=9),
        "replica-1": ServerState(name="replica-1", up=True, role=Role.STANDBY, lsn=2, lag_seconds=0.5, lag_bytes=7),
    }
    shown = picture(Snapshot(servers=states, primary=PRIMARY))
    primary, replica = shown.servers()
    assert (primary.state, primary.role, primary.serves_reads, primary.in_use) == ("running", "primary", False, 2)
    assert (replica.state, replica.role, replica.serves_reads, replica.in_use) == ("frozen", "standby", True, 0)
    assert (replica.faults, replica.lag_seconds, replica.lag_bytes, replica.answered) == (("thaw",), 0.5, 7, 1)
    everything = shown.as_json()
    assert everything["doing"] == "thaw replica-1"
    assert everything["failed"] == {"read": 0, "write": 1}
    assert everything["recent"] == ["replica-1", ""]
    assert [line["reason"] for line in everything["decisions"]] == ["status 500", "GET"]


def test_without_a_snapshot_nothing_is_known_of_the_servers() -> None:
    """As before the first probe; the declared replicas serve reads."""
    primary, replica = picture(None).servers()
    assert (primary.role, primary.up, primary.in_use) == ("unknown", False, 0)
    assert (replica.role, replica.serves_reads) == ("unknown", True)

"""Named faults of a server: `with fault("freeze", server): ...` injects one, and repairs it at the end."""

import collections.abc
import contextlib
import typing

from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.testing.operations import Server


FaultName = typing.Literal["freeze", "crash", "stop", "lag"]

_Act = collections.abc.Callable[[Server], None]

_FAULTS: typing.Final[dict[FaultName, tuple[_Act, _Act]]] = {
    "freeze": (lambda server: server.freeze(), lambda server: server.thaw()),
    "crash": (lambda server: server.stop("immediate"), lambda server: server.start()),
    "stop": (lambda server: server.stop(), lambda server: server.start()),
    "lag": (lambda server: server.pause_replay(), lambda server: server.resume_replay()),
}


@contextlib.contextmanager
def fault(name: FaultName, *servers: Server) -> collections.abc.Iterator[None]:
    """Inject a fault into some servers, and repair it at the end of the block.

    Args:
        name: `freeze` (connections stay open and get no answer), `crash` (an immediate stop), `stop` (an orderly one),
            or `lag` (the replay of a replica is paused).
        servers: servers of a `LocalCluster` or a `DockerCluster`.

    Raises:
        ConfigurationError: there is no fault of that name, or `lag` is used for a server that is not a replica.
        ServerFailedError: an operation failed on a server.

    """
    if name not in _FAULTS:
        raise ConfigurationError(field="fault", value=name, remedy=f"choose one of {', '.join(_FAULTS)}")
    if name == "lag":
        for server in servers:
            if server.execute("SELECT pg_is_in_recovery()") == "f":
                raise ConfigurationError(field="fault", value=name, remedy=f"pass a replica: {server.name} is not one")
    provoke, mend = _FAULTS[name]
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.callback(mend, server)
            provoke(server)
        yield

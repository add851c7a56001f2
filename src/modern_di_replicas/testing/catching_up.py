"""Wait until the replicas of a cluster have replayed everything."""

import collections.abc

from modern_di_replicas.errors import ServerFailedError
from modern_di_replicas.testing.operations import Server
from modern_di_replicas.testing.waiting import wait_until


def catch_up(servers: collections.abc.Sequence[Server], *, timeout: float) -> None:
    """Wait until every standby has replayed what the primary has flushed by now.

    Raises:
        ServerFailedError: a standby is not there in time, or no primary is running.

    """
    candidates = [server for server in servers if server.is_running() and not server.is_frozen()]
    source = _find_source(candidates)
    target = source.execute("SELECT pg_current_wal_flush_lsn()")
    question = (
        "SELECT NOT pg_is_in_recovery() OR pg_is_wal_replay_paused() "
        f"OR coalesce(pg_last_wal_replay_lsn() >= '{target}', false)"
    )
    waiting = [server for server in candidates if server is not source]

    def is_done() -> bool:
        waiting[:] = [server for server in waiting if server.execute(question) != "t"]
        return not waiting

    if not wait_until(is_done, timeout=timeout):
        reached = waiting[0].execute("SELECT pg_last_wal_replay_lsn()")
        raise ServerFailedError(
            server=waiting[0].name,
            action=f"catch up within {timeout:g} s",
            output=f"It has replayed {reached}, and {source.name} had flushed {target}.",
        )


def _find_source(servers: collections.abc.Sequence[Server]) -> Server:
    primaries: list[tuple[str, Server]] = []
    for server in servers:
        timeline = server.execute(
            "SELECT CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END"
        )
        if timeline and server.name == "primary":
            return server
        if timeline:
            primaries.append((timeline, server))
    if not primaries:
        raise ServerFailedError(server="primary", action="tell its position", output="No primary is running.")
    return max(primaries, key=lambda pair: pair[0])[1]

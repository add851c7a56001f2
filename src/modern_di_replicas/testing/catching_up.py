"""Wait until the replicas of a cluster have replayed everything."""

import collections.abc

from modern_di_replicas.errors import ServerFailedError
from modern_di_replicas.testing.operations import Server
from modern_di_replicas.testing.waiting import wait_until


def catch_up(servers: collections.abc.Sequence[Server], *, timeout: float) -> None:
    """Wait until every standby has reached the primary's current flush position.

    Raises:
        ServerFailedError: a standby is not there in time, or no primary is running.

    """
    candidates = [server for server in servers if server.is_running() and not server.is_frozen()]
    source, target = _find_source(candidates)
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


def _find_source(servers: collections.abc.Sequence[Server]) -> tuple[Server, str]:
    """Return the primary, and its flush position."""
    primaries: list[tuple[str, str, Server]] = []
    for server in servers:
        timeline, _, flushed = server.execute(
            "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8), pg_current_wal_flush_lsn() "
            "WHERE NOT pg_is_in_recovery()"
        ).partition("|")
        if timeline and server.name == "primary":
            return server, flushed
        if timeline:
            primaries.append((timeline, flushed, server))
    if not primaries:
        raise ServerFailedError(server="primary", action="tell its position", output="No primary is running.")
    _, flushed, source = max(primaries, key=lambda found: found[0])
    return source, flushed

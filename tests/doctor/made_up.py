"""Examinations of servers that do not exist, because the checks are pure."""

import typing

from modern_di_replicas.doctor.facts import Examination, Facts, Pools


GOOD: dict[str, typing.Any] = {
    "system": 7,
    "timeline": 1,
    "started": "noon",
    "is_encrypted": True,
    "is_local": False,
    "pooling": "none",
    "sees_statistics": True,
    "settings": {"hot_standby_feedback": "on", "max_connections": "100", "max_standby_streaming_delay": "5000"},
}


def primary(**changes: typing.Any) -> Facts:
    """Return the facts of a primary without faults, with the given changes."""
    return Facts(**{"name": "db-1", "declared": "primary", **GOOD, "in_recovery": False, **changes})


def replica(**changes: typing.Any) -> Facts:
    """Return the facts of a replica without faults, with the given changes."""
    good = {**GOOD, "in_recovery": True, "started": "evening", "behind": 0, "max_lag": 10.0, "uses_slot": True}
    return Facts(**{"name": "db-2", "declared": "replica", **good, **changes})


def examination(*servers: Facts, workers: int = 1) -> Examination:
    """Return an examination of a primary and a replica, or of the given servers."""
    pools = Pools(workers=workers, primary=15, replica=10)
    return Examination(servers=servers or (primary(), replica()), pools=pools)

"""The servers of the demo, from their own answers."""

import asyncio
import dataclasses
import datetime as dt
import typing

from modern_di_replicas.servers import DEFAULT_GROUP, Replica
from modern_di_replicas.settings import ReplicationSettings
from modern_di_replicas.testing import LocalCluster, LocalServer


ANALYTICS: typing.Final = "analytics"

_DESCRIBE: typing.Final = """
    SELECT pg_is_in_recovery(),
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END,
           current_setting('server_version'),
           (SELECT status FROM pg_stat_wal_receiver)
"""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Server:
    """The answer of one server."""

    name: str
    port: int
    in_recovery: bool
    lsn: str
    """Its write position or, on a standby, its replay position."""
    version: str
    receiving: str
    """The state of its WAL receiver; empty on a primary."""
    groups: tuple[str, ...]
    """The groups of reads that it serves; the settings say so, not the server."""


def settings_for(cluster: LocalCluster) -> ReplicationSettings:
    """Return the settings of the application: all replicas serve reads, the last one those of `analytics` too."""
    *others, last = cluster.replicas
    return ReplicationSettings(
        primary=cluster.primary.url,
        replicas=[
            *(Replica(server.url, name=server.name) for server in others),
            Replica(last.url, name=last.name, groups={DEFAULT_GROUP, ANALYTICS}),
        ],
        application_name="demo",
        max_lag=dt.timedelta(seconds=1),
    )


async def describe(cluster: LocalCluster, settings: ReplicationSettings) -> list[Server]:
    """Ask every server of the cluster for its state."""
    groups = {replica.label: tuple(sorted(replica.groups, reverse=True)) for replica in settings.servers}
    return await asyncio.gather(
        *(asyncio.to_thread(_describe, server, groups.get(server.name, ())) for server in cluster.servers)
    )


def _describe(server: LocalServer, groups: tuple[str, ...]) -> Server:
    in_recovery, lsn, version, receiving = server.execute(_DESCRIBE).split("|")
    return Server(
        name=server.name,
        port=server.port,
        in_recovery=in_recovery == "t",
        lsn=lsn,
        version=version,
        receiving=receiving,
        groups=groups,
    )

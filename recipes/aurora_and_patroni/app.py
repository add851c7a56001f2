"""Settings for fleets that others look after: Patroni, RDS, Cloud SQL, Aurora.

What was tried, plainly: the tests beside this file run on PostgreSQL 18 on one machine, with `pg_promote()` in the
place of a failover and with a proxy of their own that is turned to the new primary. Patroni, RDS, Cloud SQL and Aurora
themselves were not tried. The first three run the replication of PostgreSQL, for which this library is made; Aurora
does not.

Run it, for Patroni behind a proxy:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@proxy:5000/shop
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-1/shop postgresql+asyncpg://app:secret@db-2/shop"
    python app.py
"""

import asyncio
import collections.abc
import datetime as dt
import os

from modern_di import Container, Scope
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from modern_di_replicas import Dependencies, Intent, Monitor, ReplicaEngine, ReplicationSettings


def patroni_behind_a_proxy(endpoint: str, members: collections.abc.Sequence[str]) -> ReplicationSettings:
    """Return settings for an endpoint that always leads to the primary, such as Patroni's HAProxy or a virtual IP.

    The members are listed one by one, and all of them, today's primary too: each has a lag and a health of its own,
    and whichever is promoted is known already. Not the endpoint of the standbys: it leads to another server at each
    connection.

    Let the proxy end the sessions of the former primary (HAProxy: `on-marked-down shutdown-sessions`). A connection
    that stays open is one to a server that may still take writes, and lose them.
    """
    return ReplicationSettings(primary=endpoint, replicas=members)


def patroni_members(members: collections.abc.Sequence[str]) -> ReplicationSettings:
    """Return settings for the members of a Patroni cluster, without a proxy.

    The monitor finds out which of them is the primary, and follows when that changes; the first one is only where it
    begins. So a job needs a monitor too, as in `main`.
    """
    return ReplicationSettings(primary=members[0], replicas=members[1:])


def rds_or_cloud_sql(primary: str, read_replicas: collections.abc.Sequence[str]) -> ReplicationSettings:
    """Return settings for a managed primary and its read replicas, which may be in another zone or region.

    The address of the primary stays when the service replaces the server behind it. A read replica far away is further
    behind than a standby next door, so it gets more time; what is too much is yours to say.
    """
    return ReplicationSettings(primary=primary, replicas=read_replicas, max_lag=dt.timedelta(minutes=1))


def aurora(cluster_endpoint: str, instances: collections.abc.Sequence[str]) -> ReplicationSettings:
    """Return settings for Aurora PostgreSQL: the cluster endpoint, and the endpoint of each instance. Not tried.

    Not the reader endpoint: it leads to another instance at each connection.

    Aurora's readers read the storage that the primary writes; they replay no WAL. What they answer to
    `pg_last_wal_replay_lsn()` may be NULL, and says nothing about their lag. So no limit is put on it, `max_lag=None`:
    with a limit, a replica whose lag cannot be known serves no reads. If they refuse one of the monitor's questions
    altogether, they count as down, and the primary serves: then look into the log.
    """
    return ReplicationSettings(primary=cluster_endpoint, replicas=instances, max_lag=None)


async def servers(settings: ReplicationSettings) -> dict[str, str]:
    """Return the address of the server that a write would reach, and of one that serves a read."""
    intents = {"write": Intent.write(), "read": Intent.read()}
    addresses = {}
    async with (
        Container(groups=[Dependencies], context={ReplicationSettings: settings}) as container,
        Monitor(container.resolve(ReplicaEngine)),
    ):
        for name, intent in intents.items():
            async with container.build_child_container(scope=Scope.REQUEST, context={Intent: intent}) as unit_of_work:
                where = text("SELECT host(inet_server_addr()) || ':' || inet_server_port()")
                addresses[name] = await unit_of_work.resolve(AsyncSession).scalar(where)
    return addresses


async def main() -> None:
    settings = patroni_behind_a_proxy(os.environ["PRIMARY_URL"], os.environ["REPLICA_URLS"].split())
    for name, address in (await servers(settings)).items():
        print(f"A {name} goes to {address}.")  # noqa: T201  # a script talks to its reader


if __name__ == "__main__":
    asyncio.run(main())

"""Settings for managed clusters: Patroni, RDS, Cloud SQL, Aurora.

The tests of this recipe run on PostgreSQL 18 on one machine, with `pg_promote()` as the failover and with a simple
proxy that is switched to the new primary. Patroni, RDS, Cloud SQL and Aurora themselves were not tested. The first
three use PostgreSQL's replication, for which this library is made; Aurora does not.

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

    List every member, including the current primary: each has its own lag and health, and a promoted member is known
    already. Do not use the endpoint of the standbys: each connection may lead to another server.

    Configure the proxy to close the sessions to the former primary (HAProxy: `on-marked-down shutdown-sessions`). A
    connection that stays open leads to a server that may still accept writes, and lose them.
    """
    return ReplicationSettings(primary=endpoint, replicas=members)


def patroni_members(members: collections.abc.Sequence[str]) -> ReplicationSettings:
    """Return settings for the members of a Patroni cluster, without a proxy.

    The monitor finds the primary and follows its changes; the search starts at the first member. A job therefore needs
    a monitor too, as in `main`.
    """
    return ReplicationSettings(primary=members[0], replicas=members[1:])


def rds_or_cloud_sql(primary: str, read_replicas: collections.abc.Sequence[str]) -> ReplicationSettings:
    """Return settings for a managed primary and its read replicas, which may be in another zone or region.

    The address of the primary stays the same when the service replaces the server behind it. A replica in another
    region lags more than a standby in the same zone, so its limit is higher; choose the limit for your application.
    """
    return ReplicationSettings(primary=primary, replicas=read_replicas, max_lag=dt.timedelta(minutes=1))


def aurora(cluster_endpoint: str, instances: collections.abc.Sequence[str]) -> ReplicationSettings:
    """Return settings for Aurora PostgreSQL: the cluster endpoint, and the endpoint of each instance. Not tested.

    Do not use the reader endpoint: each connection may lead to another instance.

    Aurora's readers read the storage that the primary writes; they replay no WAL. Their `pg_last_wal_replay_lsn()` may
    be NULL, and does not show their lag. Therefore `max_lag=None`: with a limit, a replica with an unknown lag serves
    no reads. If a reader refuses a question of the monitor entirely, it counts as down, and the primary serves; the
    log gives the reason.
    """
    return ReplicationSettings(primary=cluster_endpoint, replicas=instances, max_lag=None)


async def servers(settings: ReplicationSettings) -> dict[str, str]:
    """Return the server addresses of a write and of a read."""
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

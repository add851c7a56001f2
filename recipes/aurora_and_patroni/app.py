"""Settings for fleets that others look after: Patroni, RDS, Cloud SQL, Aurora.

What was tried, plainly: everything here is ordinary PostgreSQL to the library, and was run against PostgreSQL 18 on
one machine, `behind_a_proxy` with a proxy that is turned to another server after a promotion (see the test). RDS,
Cloud SQL, Aurora and Patroni themselves were not tried.
"""

import collections.abc
import datetime as dt

from modern_di_replicas import ReplicationSettings


def behind_a_proxy(endpoint: str, replicas: collections.abc.Sequence[str]) -> ReplicationSettings:
    """Return settings for an endpoint that always leads to the primary: Patroni's HAProxy, a virtual address, RDS.

    The replicas are listed one by one, not behind an endpoint of theirs: each has a lag and a health of its own.
    """
    return ReplicationSettings(primary=endpoint, replicas=replicas)


def patroni_members(members: collections.abc.Sequence[str]) -> ReplicationSettings:
    """Return settings for the members of a Patroni cluster, without a proxy.

    Which of them is the primary is found out, and followed when it changes; the first one is only where the search
    begins.
    """
    return ReplicationSettings(primary=members[0], replicas=members[1:])


def rds_or_cloud_sql(primary: str, read_replicas: collections.abc.Sequence[str]) -> ReplicationSettings:
    """Return settings for a managed primary and its read replicas, which may be in another zone or region.

    A read replica replicates asynchronously, so it may be further behind than a standby next door.
    """
    return ReplicationSettings(primary=primary, replicas=read_replicas, max_lag=dt.timedelta(minutes=1))


def aurora(cluster_endpoint: str, instances: collections.abc.Sequence[str]) -> ReplicationSettings:
    """Return settings for Aurora PostgreSQL: the cluster endpoint, and the endpoint of each reader instance.

    Not the reader endpoint: it leads to another instance at each connection, and none could be told from another.
    Aurora's readers share the primary's storage and do not replay WAL, so the functions that tell a standby's position
    mean something else there: no limit is put on a lag that cannot be measured.
    """
    return ReplicationSettings(primary=cluster_endpoint, replicas=instances, max_lag=None)

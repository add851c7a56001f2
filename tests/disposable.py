"""Clusters for tests that break servers.

A cluster that a test left intact, except for faults that can be undone, serves the next test too, because starting one
takes longer than most tests. A change that cannot be undone (a promotion, another configuration, changed privileges)
ends it.
"""

import contextlib
import typing

import psycopg

from modern_di_replicas.errors import ClusterError
from modern_di_replicas.testing import LocalCluster
from modern_di_replicas.testing.databases import MADE_ANEW
from modern_di_replicas.testing.waiting import wait_until


# State that a test may have changed and a new cluster does not have.
_FINGERPRINT: typing.Final = """
SELECT (SELECT timeline_id FROM pg_control_checkpoint()),
       (SELECT system_identifier FROM pg_control_system()),
       (SELECT md5(string_agg(oid || proname || coalesce(proacl::text, ''), ',' ORDER BY oid)) FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace),
       (SELECT md5(string_agg(oid || relname || coalesce(relacl::text, ''), ',' ORDER BY oid)) FROM pg_class
        WHERE relnamespace = 'pg_catalog'::regnamespace),
       (SELECT string_agg(rolname || coalesce(rolpassword, ''), ',' ORDER BY rolname) FROM pg_authid),
       (SELECT string_agg(datname || datallowconn || datconnlimit, ',' ORDER BY datname) FROM pg_database),
       (SELECT string_agg(slot_name, ',' ORDER BY slot_name) FROM pg_replication_slots),
       (SELECT count(*) FROM pg_db_role_setting),
       (SELECT count(*) FROM pg_prepared_xacts)
"""
_EMPTY: typing.Final = """
SELECT format('DROP SCHEMA %I CASCADE', nspname) FROM pg_namespace
WHERE nspname NOT IN ('information_schema', 'pg_catalog', 'pg_toast') AND nspname NOT LIKE 'pg_temp%'
  AND nspname NOT LIKE 'pg_toast_temp%'
"""
_FOLLOWERS: typing.Final = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'"
_FLUSHED: typing.Final = "SELECT pg_current_wal_flush_lsn()"
_HAS_REPLAYED: typing.Final = "SELECT pg_last_wal_replay_lsn() >= %s"
_SECONDS: typing.Final = 10.0

Connections = list[psycopg.Connection[typing.Any]]


class Disposable:
    """Provides clusters to tests, one after the other."""

    def __init__(self) -> None:
        self._cluster: LocalCluster | None = None
        self._as_new: object = None

    def take(self) -> LocalCluster:
        """Return a cluster without tables, with all its servers up."""
        if self._cluster is None:
            self._cluster = LocalCluster().__enter__()
            with _connected(self._cluster) as connections:
                self._as_new = _state_of(self._cluster, connections)
        return self._cluster

    def give_back(self) -> None:
        """Undo the faults of a cluster, or end it if that is not possible."""
        if self._cluster is not None and not self._mend(self._cluster):
            self.end()

    def end(self) -> None:
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.__exit__(None, None, None)

    def _mend(self, cluster: LocalCluster) -> bool:
        with contextlib.suppress(ClusterError, OSError, psycopg.Error):
            for server in cluster.servers:
                server.thaw()
                server.start()
            with _connected(cluster) as connections:
                return _state_of(cluster, connections) == self._as_new and _emptied(cluster, connections)
        return False


@contextlib.contextmanager
def _connected(cluster: LocalCluster) -> typing.Iterator[Connections]:
    """Yield a connection to each server: a dozen questions through psql would take a second."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(psycopg.connect(server.dsn, autocommit=True, connect_timeout=10))
            for server in cluster.servers
        ]


def _emptied(cluster: LocalCluster, connections: Connections) -> bool:
    """Remove the objects of a test; return whether every replica has replayed that in time."""
    primary, *standbys = connections
    for standby in standbys:
        standby.execute("SELECT pg_wal_replay_resume()")
    statements = [statement for (statement,) in primary.execute(_EMPTY)]
    primary.execute("; ".join((*statements, *MADE_ANEW)))
    names = {replica.name for replica in cluster.replicas}
    if not wait_until(lambda: names <= {name for (name,) in primary.execute(_FOLLOWERS)}, timeout=_SECONDS):
        return False
    (flushed,) = _row(primary, _FLUSHED)
    return wait_until(
        lambda: all(_row(standby, _HAS_REPLAYED, flushed) == (True,) for standby in standbys), timeout=_SECONDS
    )


def _state_of(cluster: LocalCluster, connections: Connections) -> object:
    """Return the state that must be as in a new cluster."""
    files = [
        (server.data_directory / name).read_text()
        for server in cluster.servers
        for name in ("postgresql.conf", "postgresql.auto.conf", "pg_hba.conf")
    ]
    roles = [_row(connection, "SELECT pg_is_in_recovery()") for connection in connections]
    return _row(connections[0], _FINGERPRINT), roles, files, [server.port for server in cluster.servers]


def _row(connection: psycopg.Connection[typing.Any], question: str, *values: object) -> tuple[typing.Any, ...]:
    row: tuple[typing.Any, ...] = connection.execute(question.encode(), values or None).fetchone() or ()
    return row

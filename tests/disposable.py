"""Clusters to break: one that a test left as it found it, but for faults that can be mended, serves the next test too.

Starting a cluster takes longer than most tests; what cannot be undone (a promotion, another configuration, changed
privileges) ends it.
"""

import contextlib
import typing

from modern_di_replicas.errors import ClusterError
from modern_di_replicas.testing import LocalCluster
from modern_di_replicas.testing.databases import MADE_ANEW


# What a test may have changed and a new cluster would not have.
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


class Disposable:
    """Gives clusters to tests, one after the other."""

    def __init__(self) -> None:
        self._cluster: LocalCluster | None = None
        self._as_new: object = None

    def take(self) -> LocalCluster:
        """Return a cluster without tables, with all its servers up."""
        if self._cluster is None:
            self._cluster = LocalCluster().__enter__()
            self._as_new = _state_of(self._cluster)
        return self._cluster

    def give_back(self) -> None:
        """Mend the cluster, or end it if that cannot be done."""
        if self._cluster is not None and not self._mend(self._cluster):
            self.end()

    def end(self) -> None:
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.__exit__(None, None, None)

    def _mend(self, cluster: LocalCluster) -> bool:
        with contextlib.suppress(ClusterError, OSError):
            for server in cluster.servers:
                server.thaw()
                server.start()
            if _state_of(cluster) != self._as_new:
                return False
            for replica in cluster.replicas:
                replica.resume_replay()
            for statement in cluster.primary.execute(_EMPTY).splitlines():
                cluster.primary.execute(statement)
            cluster.primary.execute("; ".join(MADE_ANEW))
            cluster.primary.wait_for_streaming([replica.name for replica in cluster.replicas])
            cluster.catch_up()
            return True
        return False


def _state_of(cluster: LocalCluster) -> object:
    """Return what must be as in a new cluster."""
    files = [
        (server.data_directory / name).read_text()
        for server in cluster.servers
        for name in ("postgresql.conf", "postgresql.auto.conf", "pg_hba.conf")
    ]
    roles = [server.execute("SELECT pg_is_in_recovery()") for server in cluster.servers]
    return cluster.primary.execute(_FINGERPRINT), roles, files, [server.port for server in cluster.servers]

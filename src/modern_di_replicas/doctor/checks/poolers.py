"""Poolers between the application and a server."""

import collections
import collections.abc

from modern_di_replicas.doctor.facts import Examination
from modern_di_replicas.doctor.findings import Finding


Findings = collections.abc.Iterator[Finding]


def check_pooler(examination: Examination) -> Findings:
    for server in examination.servers:
        if server.pooling == "transaction" and not server.is_declared_pooled:
            yield Finding(
                kind="pooler",
                server=server.name,
                message="is behind a pooler in transaction mode, and is not declared so",
                remedy="declare pooled=True, and a probe_url past the pooler",
            )
        elif server.pooling == "session":
            yield Finding(
                kind="pooler",
                server=server.name,
                message="is behind a pooler in session mode",
                remedy="set a probe_url past the pooler, so that the monitor probes the server and not the pooler",
                severity="advice",
            )
        if server.prepared_statements:
            yield Finding(
                kind="prepared-statements",
                server=server.name,
                message=f"does not keep the driver's prepared statements: {server.prepared_statements}",
                remedy="declare pooled=True; or set max_prepared_statements in pgbouncer 1.21 or newer",
            )

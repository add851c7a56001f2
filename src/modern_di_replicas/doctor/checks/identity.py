"""Whether each server has its declared role."""

import collections
import collections.abc

from modern_di_replicas.doctor.facts import Examination, Facts
from modern_di_replicas.doctor.findings import Finding


Findings = collections.abc.Iterator[Finding]


def check_role(examination: Examination) -> Findings:
    for server in examination.servers:
        if server.in_recovery is None or _endpoints(examination)[_endpoint(server)] > 1:
            continue  # a shared endpoint has its own finding
        if server.declared == "primary" and server.in_recovery:
            yield Finding(
                kind="role",
                server=server.name,
                message="is declared as the primary, and is a standby",
                remedy="declare the server that accepts writes; was there a failover?",
            )
        if server.declared == "replica" and not server.in_recovery:
            yield Finding(
                kind="role",
                server=server.name,
                message="is declared as a replica, and is not in recovery: it follows no server",
                remedy="make it a standby of the primary, or remove it from the settings",
            )


def check_system(examination: Examination) -> Findings:
    primary = examination.primary
    for server in examination.replicas:
        if None not in (server.system, primary.system) and server.system != primary.system:
            yield Finding(
                kind="system",
                server=server.name,
                message=f"belongs to another PostgreSQL cluster ({server.system}) than the primary ({primary.system})",
                remedy="declare a standby of this primary; one that was restored or rebuilt needs a new base backup",
            )


def check_timeline(examination: Examination) -> Findings:
    primary = examination.primary
    if primary.timeline is None or primary.in_recovery:
        return
    for server in examination.replicas:
        is_standby = server.in_recovery and server.system == primary.system
        if is_standby and server.timeline is not None and server.timeline < primary.timeline:
            yield Finding(
                kind="timeline",
                server=server.name,
                message=f"is on timeline {server.timeline}, and the primary on {primary.timeline}: "
                "it has not followed a promotion",
                remedy="point its primary_conninfo to the new primary; if it has diverged, use pg_rewind",
            )


def _endpoint(server: Facts) -> tuple[object, ...]:
    known = server.system is not None and server.started is not None
    return (server.system, server.started) if known else (server.name,)


def _endpoints(examination: Examination) -> collections.Counter[tuple[object, ...]]:
    return collections.Counter(_endpoint(server) for server in examination.servers)


def check_shared_endpoint(examination: Examination) -> Findings:
    for endpoint, times in _endpoints(examination).items():
        if times > 1:
            names = [server.name for server in examination.servers if _endpoint(server) == endpoint]
            yield Finding(
                kind="shared-endpoint",
                server=", ".join(names),
                message="are one server by several names",
                remedy="declare each server once, by an address that leads only to it; a load balancer in front of "
                "several replicas hides their lag",
            )


def check_in_hot_standby(examination: Examination) -> Findings:
    for server in examination.servers:
        if server.in_recovery is None or server.reports_standby in (None, server.in_recovery):
            continue
        yield Finding(
            kind="in-hot-standby",
            server=server.name,
            message=f"is reported with in_hot_standby = {'on' if server.reports_standby else 'off'}, "
            f"and pg_is_in_recovery() is {str(server.in_recovery).lower()}",
            remedy="a pooler reports the value from before a promotion: let it reconnect (RECONNECT in pgbouncer), and "
            "do not rely on target_session_attrs behind it",
        )

"""Whether the application can reach and use the servers."""

import collections
import collections.abc
import typing

from modern_di_replicas.doctor.budget import budgets
from modern_di_replicas.doctor.facts import Examination
from modern_di_replicas.doctor.findings import Finding


CLOCK_TOLERANCE: typing.Final = 5.0
"""The allowed difference of two clocks in seconds; tokens have a lifetime of a minute."""

Findings = collections.abc.Iterator[Finding]


def check_reachable(examination: Examination) -> Findings:
    for server in examination.servers:
        if server.unreachable:
            yield Finding(
                kind="unreachable",
                server=server.name,
                message=f"cannot be reached: {server.unreachable}",
                remedy="check host, port, firewall, pg_hba.conf, user and password from the application's machine",
            )
        unanswered = sorted(server.errors.keys() - {"slots"})
        if unanswered:
            yield Finding(
                kind="not-examined",
                server=server.name,
                message=f"does not answer every question: {unanswered[0]}: {server.errors[unanswered[0]]}",
                remedy="grant the missing privilege; the library works without it if a managed server lacks it",
                severity="advice",
            )


def check_read_only(examination: Examination) -> Findings:
    primary = examination.primary
    if not primary.in_recovery and primary.settings.get("default_transaction_read_only") == "on":
        yield Finding(
            kind="read-only",
            server=primary.name,
            message="default_transaction_read_only is on for this user and database: every write fails",
            remedy="ALTER ROLE ... (or DATABASE, or SYSTEM) RESET default_transaction_read_only",
        )


def check_privileges(examination: Examination) -> Findings:
    for server in examination.servers:
        if server.sees_statistics is False:
            yield Finding(
                kind="privileges",
                server=server.name,
                message="its user may not read pg_stat_wal_receiver: after a promotion, the monitor knows the "
                "timeline of a standby only from its next checkpoint",
                remedy="GRANT pg_read_all_stats TO the user, or pg_monitor",
                severity="advice",
            )


def check_tls(examination: Examination) -> Findings:
    for server in examination.servers:
        if server.is_encrypted is False and server.is_local is False and server.pooling == "none":
            yield Finding(
                kind="tls",
                server=server.name,
                message="is on another machine, and the connection is not encrypted",
                remedy="ssl = on on the server, and ssl=verify-full in the URL (sslmode=verify-full for psycopg)",
                severity="advice",
            )


def check_clock(examination: Examination) -> Findings:
    for server in examination.servers:
        offset = server.clock_offset
        if offset is not None and abs(offset) > CLOCK_TOLERANCE:
            yield Finding(
                kind="clock",
                server=server.name,
                message=f"its clock is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} this machine's",
                remedy="synchronise the clocks (NTP): tokens and logs are compared by time",
            )


def check_budget(examination: Examination) -> Findings:
    for budget in budgets(examination):
        if not budget.fits:
            yield Finding(
                kind="connection-budget",
                server=budget.server,
                message=f"may run out of connections: {budget.arithmetic} (workers x (pool + monitor))",
                remedy="make the pools smaller, raise max_connections, or put a pooler in between (pooled=True)",
            )

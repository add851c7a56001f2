"""Check the facts. Pure: each check takes an examination and yields its findings."""

import collections.abc
import typing

from modern_di_replicas.doctor.checks import access, identity, poolers, replication
from modern_di_replicas.doctor.facts import Examination
from modern_di_replicas.doctor.findings import Finding


CHECKS: typing.Final[tuple[collections.abc.Callable[[Examination], collections.abc.Iterator[Finding]], ...]] = (
    access.check_reachable,
    identity.check_role,
    identity.check_system,
    identity.check_timeline,
    identity.check_shared_endpoint,
    identity.check_in_hot_standby,
    poolers.check_pooler,
    replication.check_lag,
    replication.check_apply_delay,
    replication.check_slots,
    replication.check_conflicts,
    access.check_read_only,
    access.check_privileges,
    access.check_tls,
    access.check_clock,
    access.check_budget,
)


def findings_of(examination: Examination) -> list[Finding]:
    """Return all findings, problems first."""
    found = [finding for check in CHECKS for finding in check(examination)]
    return sorted(found, key=lambda finding: finding.severity == "advice")

"""Whether the replicas follow the primary, and will continue to."""

import collections
import collections.abc
import typing

from modern_di_replicas.doctor.facts import Examination
from modern_di_replicas.doctor.findings import Finding, Severity


KEPT_WAL: typing.Final = 1024
"""Megabytes of `wal_keep_size` from which a replica needs no slot."""

Findings = collections.abc.Iterator[Finding]


def check_lag(examination: Examination) -> Findings:
    for server in examination.replicas:
        if server.replay_paused:
            yield Finding(
                kind="replay-paused",
                server=server.name,
                message="its replay is paused: it does not get newer",
                remedy="SELECT pg_wal_replay_resume()",
            )
        elif server.behind and server.number("recovery_min_apply_delay") == 0:
            yield Finding(
                kind="lag",
                server=server.name,
                message=f"is still {server.behind:,} bytes of WAL behind after {server.waited:.1f} s",
                remedy="check its disk and CPU, long queries on it, and the network to the primary",
            )


def check_apply_delay(examination: Examination) -> Findings:
    for server in examination.replicas:
        delay = server.number("recovery_min_apply_delay") / 1000
        if delay > 0:
            is_out = server.max_lag is not None and delay >= server.max_lag
            yield Finding(
                kind="apply-delay",
                server=server.name,
                message=f"is delayed by {delay:g} s on purpose (recovery_min_apply_delay)"
                + (f", which is more than its max_lag of {server.max_lag:g} s: it never serves" if is_out else ""),
                remedy="do not declare a delayed replica, or give it a separate group and a max_lag above the delay",
            )


def check_slots(examination: Examination) -> Findings:
    for server in examination.servers:
        for slot in server.slots or ():
            is_lost = slot.wal_status in ("lost", "unreserved")
            if is_lost or (not slot.active and server.in_recovery is False):
                state = f"has lost WAL ({slot.wal_status})" if is_lost else "is inactive"
                yield Finding(
                    kind="inactive-slot",
                    server=server.name,
                    message=f"its replication slot {slot.name!r} {state}, and keeps {slot.retained / 2**20:,.0f} MB",
                    remedy="bring its replica back, or drop the slot: SELECT pg_drop_replication_slot(...); "
                    "max_slot_wal_keep_size limits what it keeps",
                )
    for server in examination.replicas:
        if server.in_recovery and server.uses_slot is False and server.number("wal_keep_size") < KEPT_WAL:
            yield Finding(
                kind="no-slot",
                server=server.name,
                message=f"has no replication slot, and wal_keep_size is {server.number('wal_keep_size')} MB: "
                "a longer interruption makes a new base backup necessary",
                remedy="give it a slot (primary_slot_name), or raise wal_keep_size on the primary",
                severity="advice",
            )


def check_conflicts(examination: Examination) -> Findings:
    for server in examination.replicas:
        if not server.in_recovery or not server.settings:
            continue
        has_feedback = server.settings.get("hot_standby_feedback") == "on"
        if not has_feedback:
            yield Finding(
                kind="hot-standby-feedback",
                server=server.name,
                message="hot_standby_feedback is off: VACUUM on the primary cancels its queries",
                remedy="set hot_standby_feedback = on; cancelled reads are run again on the primary until then",
                severity="advice",
            )
        delay = server.number("max_standby_streaming_delay")
        limit = server.max_lag
        is_too_long = not has_feedback and limit is not None and delay / 1000 > limit
        if delay < 0 or is_too_long:
            severity: Severity = "problem" if delay < 0 else "advice"
            words = "without limit" if delay < 0 else f"for {delay / 1000:g} s, more than its max_lag of {limit:g} s"
            yield Finding(
                kind="standby-delay",
                server=server.name,
                message=f"its queries may delay the replay {words} (max_standby_streaming_delay)",
                remedy="set max_standby_streaming_delay below max_lag",
                severity=severity,
            )

"""Whether the application can reach and use the servers."""

import typing

import pytest

from modern_di_replicas.doctor.checks import access
from tests.doctor.made_up import GOOD, examination, primary, replica


def test_a_server_that_is_unreachable_or_silent_on_a_question_is_found() -> None:
    """A managed server may hide its slots, which is not a finding."""
    servers = [
        replica(name="gone", unreachable="refused"),
        replica(name="shy", errors={"wal": "42501", "slots": "42501"}),
        replica(name="managed", errors={"slots": "42501"}),
    ]
    found = [(one.kind, one.server, one.severity) for one in access.check_reachable(examination(primary(), *servers))]
    assert found == [("unreachable", "gone", "problem"), ("not-examined", "shy", "advice")]


@pytest.mark.parametrize(
    ("value", "in_recovery", "found"), [("on", False, ["read-only"]), ("off", False, []), ("on", True, [])]
)
def test_a_primary_that_refuses_writes_is_found(value: str, in_recovery: bool, found: list[str]) -> None:
    """A standby refuses writes in any case, and has a separate finding."""
    server = primary(in_recovery=in_recovery, settings={"default_transaction_read_only": value})
    assert [finding.kind for finding in access.check_read_only(examination(server))] == found


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({}, []),
        ({"sees_statistics": False}, ["privileges"]),
        ({"sees_statistics": None}, []),
        ({"is_encrypted": False}, ["tls"]),
        ({"is_encrypted": False, "is_local": True}, []),
        ({"is_encrypted": False, "pooling": "session"}, []),
        ({"clock_offset": 6.0}, ["clock"]),
        ({"clock_offset": -6.0}, ["clock"]),
        ({"clock_offset": 1.0}, []),
        ({"settings": {**GOOD["settings"], "max_connections": "16"}}, []),
        ({"settings": {**GOOD["settings"], "max_connections": "15"}}, ["connection-budget"]),
    ],
)
def test_missing_access_is_found(facts: dict[str, typing.Any], found: list[str]) -> None:
    """A missing answer is not a finding."""
    checks = (access.check_privileges, access.check_tls, access.check_clock, access.check_budget)
    examined = examination(primary(), replica(**facts))
    assert [finding.kind for check in checks for finding in check(examined)] == found

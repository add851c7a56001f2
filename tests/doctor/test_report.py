"""The findings as text and as JSON."""

import json
import sys
import typing

from rich.console import Console

from modern_di_replicas.doctor.facts import Examination
from modern_di_replicas.doctor.findings import Finding
from modern_di_replicas.doctor.report import as_json, show
from tests.doctor.made_up import examination, primary, replica


def finding(server: str, **changes: typing.Any) -> Finding:
    return Finding(**{"kind": "lag", "server": server, "message": "is behind", "remedy": "look at it", **changes})


def shown(examined: Examination, *findings: Finding) -> list[str]:
    console = Console(width=80, record=True, file=typing.cast(typing.Any, sys.stderr))
    show(console, examined, findings)
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_without_findings_it_says_so() -> None:
    """Every server is marked with a plus."""
    lines = shown(examination())
    assert lines[-1] == "Nothing found: this topology is as the library expects it."
    assert [line.split()[:4] for line in lines if " db-" in line][:2] == [
        ["+", "db-1", "primary", "primary"],
        ["+", "db-2", "replica", "standby"],
    ]


def test_findings_that_differ_only_in_their_server_have_one_remedy() -> None:
    """Ten replicas with one fault are reported once."""
    lines = shown(
        examination(primary(), replica(), replica(name="db-3"), replica(name="db-4")),
        finding("db-2"),
        finding("db-3"),
        finding("db-4", severity="advice"),
    )
    assert lines.count("  Remedy: look at it.") == 2
    assert lines[-1] == "2 problems, 1 of advice."
    marks = {line.split()[1]: line.split()[0] for line in reversed(lines) if line[2:5] == "db-"}
    assert {name: marks[name] for name in ("db-2", "db-3", "db-4")} == {"db-2": "x", "db-3": "x", "db-4": "!"}


def test_an_unknown_value_is_a_question_mark() -> None:
    """An empty cell would look like no value."""
    lines = shown(examination(primary(unreachable="refused"), replica(in_recovery=None, behind=None, version=None)))
    rows = [line for line in lines if line[2:5] == "db-"]
    assert "unreachable" in rows[0]
    assert rows[1].split()[3:6] == ["?", "1", "?"]


def test_a_program_gets_everything_as_json() -> None:
    """The facts, the connection budget, and the findings with their pages."""
    found = json.loads(as_json(examination(), [finding("db-2")]))
    assert [server["name"] for server in found["servers"]] == ["db-1", "db-2"]
    assert [budget["fits"] for budget in found["budgets"]] == [True, True]
    assert found["findings"][0]["page"].endswith("/doctor/#lag")

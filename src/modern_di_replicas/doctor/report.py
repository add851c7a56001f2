"""Show the findings: in a terminal of 80 columns, or as JSON."""

import collections.abc
import dataclasses
import json
import typing

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from modern_di_replicas.doctor.budget import budgets
from modern_di_replicas.doctor.facts import Examination, Facts
from modern_di_replicas.doctor.findings import Finding


UNKNOWN: typing.Final = "?"


def show(console: Console, examination: Examination, findings: collections.abc.Sequence[Finding]) -> None:
    """Print the servers, the connection budget, and the findings with their remedies."""
    console.print(_servers(examination, findings))
    console.print(_budgets(examination))
    for alike in _grouped(findings):
        _show_findings(console, alike)
    problems = sum(finding.severity == "problem" for finding in findings)
    if not findings:
        console.print(Text("\nNothing found: this topology is as the library expects it.", style="bold green"))
        return
    style = "bold red" if problems else "bold yellow"
    console.print(Text(f"\n{_count(problems, 'problem')}, {len(findings) - problems} of advice.", style=style))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _servers(examination: Examination, findings: collections.abc.Sequence[Finding]) -> Table:
    table = Table(title="Servers", title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for title in ("", "server", "declared", "is", "timeline", "behind", "TLS", "pooler", "version"):
        table.add_column(title, overflow="fold")
    for server in examination.servers:
        own = [finding for finding in findings if server.name in finding.server.split(", ")]
        table.add_row(*_cells(server, own))
    return table


def _cells(server: Facts, findings: collections.abc.Sequence[Finding]) -> list[Text]:
    if any(finding.severity == "problem" for finding in findings):
        mark = Text("x", style="bold red")
    else:
        mark = Text("!", style="yellow") if findings else Text("+", style="green")
    role = UNKNOWN if server.in_recovery is None else "standby" if server.in_recovery else "primary"
    behind = "-" if server.declared == "primary" else UNKNOWN if server.behind is None else f"{server.behind:,} B"
    cells = [
        server.name,
        server.declared,
        "unreachable" if server.unreachable else role,
        _shown(server.timeline),
        behind,
        {True: "yes", False: "no", None: UNKNOWN}[server.is_encrypted],
        server.pooling or UNKNOWN,
        _shown(server.version),
    ]
    return [mark, *map(Text, cells)]


def _shown(value: object) -> str:
    return UNKNOWN if value is None else str(value)


def _budgets(examination: Examination) -> Table:
    table = Table(title="\nConnections", title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for title in ("", "server", "workers x (pool + monitor), of what is available"):
        table.add_column(title, overflow="fold")
    for budget in budgets(examination):
        mark = Text("+", style="green") if budget.fits else Text("x", style="bold red")
        table.add_row(mark, Text(budget.server), Text(budget.arithmetic))
    return table


def _grouped(findings: collections.abc.Iterable[Finding]) -> collections.abc.Iterable[list[Finding]]:
    """Group the findings that differ only in their server."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.kind, finding.severity, finding.remedy), []).append(finding)
    return groups.values()


def _show_findings(console: Console, alike: collections.abc.Sequence[Finding]) -> None:
    finding = alike[0]
    style = "bold red" if finding.severity == "problem" else "bold yellow"
    title = Text(f"\n{finding.severity} ", style=style)
    title.append(finding.kind, style="bold")
    console.print(title)
    for words, look in (
        *((f"{one.server} {one.message}.", "") for one in alike),
        (f"Remedy: {finding.remedy}.", "green"),
        (finding.page, "dim"),
    ):
        console.print(Padding(Text(words, style=look), (0, 0, 0, 2)))


def as_json(examination: Examination, findings: collections.abc.Sequence[Finding]) -> str:
    """Return the report as JSON, for programs."""
    content = {
        "servers": [dataclasses.asdict(server) for server in examination.servers],
        "budgets": [{**dataclasses.asdict(budget), "fits": budget.fits} for budget in budgets(examination)],
        "findings": [{**dataclasses.asdict(finding), "page": finding.page} for finding in findings],
    }
    return json.dumps(content, indent=2)

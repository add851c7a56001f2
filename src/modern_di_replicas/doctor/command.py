"""Run the doctor."""

import asyncio
import collections.abc
import sys
import typing

from rich.console import Console
from rich.text import Text

from modern_di_replicas.doctor.checks import findings_of
from modern_di_replicas.doctor.examination import examine
from modern_di_replicas.doctor.report import as_json, show
from modern_di_replicas.doctor.targets import settings_of
from modern_di_replicas.errors import ReplicasError


HEALTHY: typing.Final = 0
PROBLEM: typing.Final = 1
WRONG_TARGET: typing.Final = 2


def run(targets: collections.abc.Sequence[str], *, workers: int, as_text: bool = True) -> int:
    """Examine servers and print the report.

    Args:
        targets: URLs, or one `module:name`; see `settings_of`.
        workers: how many processes run the application.
        as_text: whether to print for people; otherwise JSON.

    Returns:
        The exit status: 0, 1 when there is a problem, 2 when the targets are not usable.

    """
    try:
        settings = settings_of(targets)
    except ReplicasError as error:
        Console(stderr=True).print(Text(str(error), style="bold red"), soft_wrap=True)
        return WRONG_TARGET
    examination = asyncio.run(examine(settings, workers=workers))
    findings = findings_of(examination)
    if as_text:
        show(Console(), examination, findings)
    else:
        sys.stdout.write(as_json(examination, findings) + "\n")
    return PROBLEM if any(finding.severity == "problem" for finding in findings) else HEALTHY

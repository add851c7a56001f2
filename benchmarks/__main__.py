"""`make bench`, `make bench-quick` and `make bench-render`."""

import argparse
import asyncio
import collections.abc
import sys
import tempfile

from rich.console import Console
from rich.markdown import Markdown

from benchmarks import machine, tables
from benchmarks.measuring import measure
from benchmarks.plan import FULL, QUICK
from benchmarks.results import Results
from benchmarks.workers import ROOT


FOLDER = ROOT / "benchmarks"
RESULTS = FOLDER / "results.json"
WATCHED = 3.0
"""Seconds for which the machine has to be idle before a run."""


def main(arguments: collections.abc.Sequence[str] | None = None) -> int:
    """Measure, print a summary, and write the results of a full run; return 1 if the machine was too busy for that."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compare with the alternatives.")
    parser.add_argument("--quick", action="store_true", help="take less than a minute and write nothing")
    parser.add_argument("--render", action="store_true", help="measure nothing: write what follows from results.json")
    options = parser.parse_args(arguments)
    console = Console()
    if options.render:
        render(console)
        return 0
    try:
        if not options.quick:
            machine.check_quiet(WATCHED)
        results, others = _measure(console, quick=options.quick)
        console.print(Markdown(tables.summary(results)))
        others.check()
    except machine.BusyMachineError as error:
        console.print(f"[bold red]{error}[/] These figures are not reliable, and nothing is written.")
        return 0 if options.quick else 1
    if not options.quick:
        results.save(RESULTS)
        render(console)
    return 0


def render(console: Console) -> None:
    """Write the tables, the pictures and the figures in the README from the kept results."""
    from benchmarks import figures  # noqa: PLC0415  # the tests have no matplotlib

    results = Results.load(RESULTS)
    (FOLDER / "RESULTS.md").write_text(tables.render(results))
    figures.draw(results, FOLDER / "figures")
    readme = ROOT / "README.md"
    readme.write_text(tables.update(readme.read_text(), results))
    console.print("Written: benchmarks/results.json, benchmarks/RESULTS.md, benchmarks/figures, figures in README.md")


def _measure(console: Console, *, quick: bool) -> tuple[Results, machine.OtherPrograms]:
    with tempfile.TemporaryFile() as log, console.status("") as status:
        try:
            return asyncio.run(measure(QUICK if quick else FULL, log, status.update))
        except BaseException:
            log.seek(0)
            console.print(log.read().decode(errors="replace")[-4000:], markup=False)
            raise


if __name__ == "__main__":
    sys.exit(main())

"""`make bench` and `make bench-quick`."""

import argparse
import asyncio
import tempfile

from rich.console import Console
from rich.markdown import Markdown

from benchmarks import figures, report
from benchmarks.measuring import measure
from benchmarks.plan import FULL, QUICK
from benchmarks.results import Results
from benchmarks.workers import ROOT


PLACE = ROOT / "benchmarks"


def main() -> None:
    """Measure, print the verdict, and write the results of a full run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Side by side with what else there is.")
    parser.add_argument("--quick", action="store_true", help="under a minute, and shown only")
    quick = parser.parse_args().quick
    console = Console()
    results = _measure(console, quick=quick)
    console.print(Markdown(report.summary(results)))
    if quick:
        return
    (PLACE / "RESULTS.md").write_text(report.render(results))
    figures.draw(results, PLACE / "figures")
    console.print("Written: benchmarks/RESULTS.md and benchmarks/figures")


def _measure(console: Console, *, quick: bool) -> Results:
    with tempfile.TemporaryFile() as log, console.status("") as status:
        try:
            return asyncio.run(measure(QUICK if quick else FULL, log, status.update))
        except BaseException:
            log.seek(0)
            console.print(log.read().decode(errors="replace")[-4000:], markup=False)
            raise


if __name__ == "__main__":
    main()

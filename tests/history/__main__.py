"""`make history`: the long run with every fault, then the alternatives in the same harness.

`python -m tests.history [operations] [seconds] [variants ...]`; see `application.VARIANTS`.
"""

import asyncio
import collections
import pathlib
import sys
import tempfile
import time
import typing

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from modern_di_replicas.testing import LocalCluster
from tests.history.application import FLASK, OURS, VARIANTS
from tests.history.checker import Violation, check, report
from tests.history.events import History, Operation
from tests.history.experiment import GRACE, LAG, PIN, record
from tests.history.faults import Faults, everything, lag_and_pause


OPERATIONS: typing.Final = 100_000
FLASK_OPERATIONS: typing.Final = 50_000
RIVAL_OPERATIONS: typing.Final = 3_000
SECONDS: typing.Final = 460.0
"""No further round of faults begins after this time."""
KINDS: typing.Final = ("read-your-writes", "monotonic reads", "bounded staleness", "failed reads")
SHOWN: typing.Final = 5
"""Number of violations of each kind that are printed in detail."""


def wanted_of(variant: str, operations: int) -> int:
    """Return the number of operations of a variant, for a given number of the first one."""
    return min(operations, {"ours": operations, FLASK: FLASK_OPERATIONS}.get(variant, RIVAL_OPERATIONS))


async def run(
    console: Console, log: typing.IO[bytes], *, variants: list[str], operations: int, seconds: float
) -> dict[str, tuple[History, list[Violation]]]:
    results = {}
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[fault]}"),
        console=console,
    )
    async with LocalCluster(replicas=2, synchronous=True) as cluster:
        faults = Faults(cluster)
        with progress:
            for variant in variants:
                wanted = wanted_of(variant, operations)
                bar = progress.add_task(f"{variant:5}", total=wanted, fault="")

                def show(done: int, bar: typing.Any = bar) -> None:
                    names = [disturbance.name for disturbance in faults.history.disturbances]
                    progress.update(bar, completed=done, fault=f"after: {names[-1]}" if names else "")

                history = await record(
                    variant,
                    faults,
                    everything if variant in OURS else lag_and_pause,
                    log=log,
                    operations=wanted,
                    seconds=seconds,
                    progress=show,
                )
                show(len(history.events))
                results[variant] = history, check(history, lag=LAG, grace=GRACE)
    return results


def show(console: Console, results: dict[str, tuple[History, list[Violation]]]) -> None:
    table = Table(title=f"Violations, by variant (Bounded: {LAG:g} s; pin: {PIN:g} s)", title_justify="left")
    table.add_column("")
    for variant in results:
        table.add_column(variant, justify="right")
    rows: dict[str, list[str]] = collections.defaultdict(list)
    for history, violations in results.values():
        reads = [event for event in history.events if event.is_read and event.value is not None]
        writes = [event for event in history.events if event.operation is Operation.WRITE]
        faults = collections.Counter(disturbance.name for disturbance in history.disturbances)
        kinds = collections.Counter(violation.kind for violation in violations)
        rows["operations"].append(f"{len(history.events):,}")
        rows["  writes"].append(f"{len(writes):,}")
        rows["  reads"].append(f"{len(history.events) - len(writes):,}")
        by_replicas = sum(bool(read.by_replica) for read in reads)
        rows["  reads answered by replicas"].append(f"{by_replicas / max(1, len(reads)):.1%}")
        rows["writes that failed"].append(f"{sum(write.value is None for write in writes):,}")
        rows["reads that failed"].append(f"{sum(e.is_read and e.value is None for e in history.events):,}")
        rows["faults"].append(f"{faults.total() - faults['without a primary']}")
        for kind in KINDS:
            rows[f"violations: {kind}"].append(f"{kinds[kind]:,}")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    console.print(table)
    for variant, (history, violations) in results.items():
        shown: collections.Counter[str] = collections.Counter()
        for violation in violations:
            shown[violation.kind] += 1
            if shown[violation.kind] <= (SHOWN if variant in OURS else 1):
                told = report([violation], history, grace=GRACE)
                console.print(f"{variant}: {told}", highlight=False, markup=False, soft_wrap=True)


def main(arguments: list[str]) -> int:
    console = Console(width=None if sys.stdout.isatty() else 110)
    operations = int(arguments[0]) if arguments else OPERATIONS
    seconds = float(arguments[1]) if arguments[1:] else SECONDS
    variants = arguments[2:] or list(VARIANTS)
    began = time.monotonic()
    log_path = pathlib.Path(tempfile.gettempdir()) / "modern-di-replicas-history.log"
    with log_path.open("wb") as log:
        results = asyncio.run(run(console, log, variants=variants, operations=operations, seconds=seconds))
    show(console, results)
    console.print(f"{time.monotonic() - began:.0f} s. What the workers said: {log_path}")
    is_as_claimed = all(bool(violations) is (variant not in OURS) for variant, (_, violations) in results.items())
    is_enough = all(
        len(history.events) >= wanted_of(variant, operations)
        for variant, (history, _) in results.items()
        if variant in OURS
    )
    if not is_enough:
        console.print("Fewer operations than wanted: the machine is too busy.", style="bold red")
    return 0 if is_as_claimed and is_enough else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

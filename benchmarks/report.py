"""`RESULTS.md`: what a run found, written by the command."""

import collections.abc
import typing

from benchmarks import texts
from benchmarks.contenders.catalogue import (
    AUTOCOMMIT,
    CONTENDERS,
    FLOORS,
    FRESHNESS,
    NO_TOKENS,
    OURS,
    POOL,
    RECIPE,
    Entry,
)
from benchmarks.faults import FAULTS, LAG, PERIOD, THINKING, VISITORS, WRITES
from benchmarks.plan import (
    BUSY_GET,
    CLIENTS,
    FULL,
    KEYED_READ,
    SAME_REPLICA,
    SURFACES,
    TOKEN_FIRST_READ,
    TOKEN_READ,
    TOKEN_WRITE,
)
from benchmarks.results import Cell, Results
from benchmarks.servers import READING_CONNECTIONS, WRITING_CONNECTIONS
from benchmarks.verdicts import (
    in_microseconds,
    keyed_read,
    losses,
    orm_share,
    own_cost,
    rivals,
    shown,
    token_cost,
    verdicts,
)
from benchmarks.work.operations import BY_NAME, OPERATIONS


Rows = collections.abc.Iterable[collections.abc.Sequence[str]]
BUSY_LOAD: typing.Final = 0.3
COUNT: typing.Final = {1: "1 client", 10: "10 clients", 100: "100 clients"}


def summary(results: Results) -> str:
    """Return the verdict, and where others are better: what the command prints."""
    judged = table(
        ("figure to reach", "this run", "reached"),
        ([verdict.target, verdict.figure, "yes" if verdict.reached else "**no**"] for verdict in verdicts(results)),
    )
    busy = [texts.BUSY.format(load=results.load)] if results.load > BUSY_LOAD else []
    pool, recipe = (shown(keyed_read(results, other, KEYED_READ)) for other in (POOL, RECIPE))
    two = texts.TWO_REPLICAS.format(pool=pool, recipe=recipe)
    share = texts.ORM_SHARE.format(share=shown(orm_share(results)))
    told = (SAME_REPLICA, *(cell for cell in results.cells() if cell.surface in SURFACES))
    fewest, most = results.rounds(told, OURS.name)
    how = texts.HOW.format(fewest=fewest, most=most)
    in_short = ["## In short", texts.IN_SHORT, _in_short(results)]
    return "\n\n".join(
        ["## Verdict", *busy, judged, how, two, share, *in_short, "## Where others are better", _losses(results)]
    )


def render(results: Results) -> str:
    """Return the whole of `RESULTS.md`."""
    parts = [
        "# Side by side",
        "Written by `make bench`; not edited by hand. Another machine gives other figures: run it on yours.",
        table(("", ""), results.machine.items()),
        texts.WHERE.format(seconds=results.seconds, placement=texts.DIVIDED if results.is_divided else texts.TOGETHER),
        summary(results),
        *_sessions_and_frameworks(results),
        *_costs(results),
        *_faults(results),
        *_freshness(results),
        "## Who takes part",
        _who(),
    ]
    return "\n\n".join(parts) + "\n"


def table(head: collections.abc.Sequence[str], rows: Rows) -> str:
    """Return a Markdown table; figures stand on the right."""
    lines = [head, ["---", *(["---:"] * (len(head) - 1))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _in_short(results: Results) -> str:
    cells = {"ORM read by key, 1 client": KEYED_READ, "GET through FastAPI, 100 clients": BUSY_GET}
    return table(
        ("", *cells),
        ([entry.title, *(_ratio(results, cell, entry) for cell in cells.values())] for entry in rivals()),
    )


def _losses(results: Results) -> str:
    lines = [
        f"- **{loss.entry.title}** is faster in {loss.lost} of {loss.cells} measurements beyond the spread, in "
        f"{loss.at_median} by the median; the most in "
        f"“{BY_NAME[loss.worst.operation].title}” through {SURFACES[loss.worst.surface]} with "
        f"{COUNT[loss.worst.clients]}, where we take {shown(loss.ratio)} of its time."
        for loss in losses(results)
    ]
    smaller = [entry.title for entry in rivals() if results.memory[entry.name] < results.memory[entry.rival_of]]
    if smaller:
        lines.append(f"- An open request holds less memory with {', '.join(smaller)}.")
    for fault in FAULTS:
        outcomes = results.faults[fault.name]
        for what, field in (("fails fewer reads", "failed"), ("shows fewer stale reads", "stale")):
            better = [
                entry.title
                for entry in rivals()
                if getattr(outcomes[entry.name], field) < getattr(outcomes[entry.rival_of], field)
            ]
            if better:
                lines.append(f"- While {fault.title}, {', '.join(better)} {what}.")
        faster = [
            entry.title for entry in rivals() if outcomes[entry.name].worst < outcomes[entry.rival_of].worst / 1.5
        ]
        if faster:
            lines.append(f"- While {fault.title}, the slowest read is clearly faster with {', '.join(faster)}.")
    return "\n".join(lines) or "Nowhere in this run."


def _sessions_and_frameworks(results: Results) -> collections.abc.Iterator[str]:
    yield "## Requests"
    yield "![The time of a keyed read, by contender](figures/keyed-read.svg)"
    yield "![Requests per second over HTTP, by contender](figures/requests.svg)"
    yield texts.REQUESTS.format(reading=READING_CONNECTIONS, writing=WRITING_CONNECTIONS)
    ours = set(CONTENDERS) - set(rivals())
    for surface, surface_title in SURFACES.items():
        for clients in CLIENTS:
            cells = [Cell(surface=surface, operation=operation.name, clients=clients) for operation in OPERATIONS]
            if (cells[0], OURS.name) not in results.samples:
                continue
            yield f"### Through {surface_title}, {COUNT[clients]}"
            yield table(
                ("", *(operation.title for operation in OPERATIONS)),
                (
                    [f"{entry.title}, µs", *(_absolute(results, cell, entry) for cell in cells)]
                    if entry in ours
                    else [entry.title, *(_ratio(results, cell, entry) for cell in cells)]
                    for entry in (*CONTENDERS, *FLOORS)
                    if (cells[0], entry.name) in results.samples
                ),
            )
    failed = {
        entry.title: sum(
            sample.failed for (_, name), samples in results.samples.items() if name == entry.name for sample in samples
        )
        for entry in CONTENDERS
    }
    if any(failed.values()):
        told = ", ".join(f"{title} {count}" for title, count in failed.items() if count)
        yield f"Operations that failed in these runs: {told}."
    yield "### Round trips of one operation, counted on the wire"
    yield texts.ROUND_TRIPS
    yield table(
        ("", *(operation.title for operation in OPERATIONS)),
        (
            [entry.title, *(str(results.round_trips[operation.name, entry.name]) for operation in OPERATIONS)]
            for entry in CONTENDERS
        ),
    )


def _ratio(results: Results, cell: Cell, entry: Entry) -> str:
    if (cell, entry.name) not in results.samples:
        return ""
    if not all(sample.done for sample in results.samples[cell, entry.name]):
        return "failed"
    ratio = results.ratio(cell, entry.rival_of, entry.name)
    return f"{shown(ratio)} / {results.cpu_ratio(cell, entry.rival_of, entry.name):.2f}"


def _absolute(results: Results, cell: Cell, entry: Entry) -> str:
    return f"{results.time(cell, entry.name).median * 1e6:.0f} / {results.cpu(cell, entry.name).median * 1e6:.0f}"


def _costs(results: Results) -> collections.abc.Iterator[str]:
    yield "## What the library itself costs"
    yield texts.COST
    costs = {
        "processor time": own_cost(results, "cpu"),
        "wall time": own_cost(results, "wall"),
    }
    yield table(
        ("", "for a request, µs", "for a statement, µs", "share of a request with one statement"),
        (
            [
                title,
                *(shown(in_microseconds(spread), 0) for spread in (cost.request, cost.statement)),
                f"{cost.share:.0%}",
            ]
            for title, cost in costs.items()
        ),
    )
    yield texts.TOKENS
    cells = (TOKEN_WRITE, TOKEN_FIRST_READ, TOKEN_READ)
    yield table(
        ("", "write", "read right after a write", "later read"),
        [
            *(
                [f"{entry.title}, µs", *(f"{results.time(cell, entry.name).median * 1e6:.0f}" for cell in cells)]
                for entry in (OURS, NO_TOKENS)
            ),
            ["ratio", *(shown(token_cost(results, cell)) for cell in cells)],
        ],
    )
    sizes = list(next(iter(results.choices.values())))
    yield "The choice of a replica alone, in µs:"
    yield table(
        ("", *(f"{size} replicas" if size > 1 else "1 replica" for size in sizes)),
        (
            [strategy, *(shown(in_microseconds(spread), 1) for spread in found.values())]
            for strategy, found in results.choices.items()
        ),
    )
    yield "Memory that an open request holds after one keyed read, connections not counted:"
    yield table(("", "bytes"), ([entry.title, f"{results.memory[entry.name]:.0f}"] for entry in CONTENDERS))


def _faults(results: Results) -> collections.abc.Iterator[str]:
    yield "## Faults"
    yield "![What readers meet while replicas freeze, crash and lag](figures/faults.svg)"
    yield texts.VISITS.format(visitors=VISITORS, period=PERIOD, seconds=FULL.fault[1])
    for fault in FAULTS:
        yield f"### While {fault.title}"
        outcomes = results.faults[fault.name]
        head = ["", "reads", "failed", "slowest, s", *(["stale", "failed writes"] if fault.writes else [])]
        yield table(
            head,
            (
                [
                    entry.title,
                    str(outcome.reads),
                    str(outcome.failed),
                    f"{outcome.worst:.2f}",
                    *([str(outcome.stale), str(outcome.failed_writes)] if fault.writes else []),
                ]
                for entry in CONTENDERS
                for outcome in [outcomes[entry.name]]
            ),
        )


def _freshness(results: Results) -> collections.abc.Iterator[str]:
    if not results.freshness:
        return
    yield "## Consistency"
    yield "![Reads on replicas, and stale reads](figures/consistency.svg)"
    yield texts.CONSISTENCY.format(lag=LAG * 1000, thinking=THINKING * 1000, writes=WRITES)
    yield table(
        ("", "reads", "on a replica", "stale", "failed", "median, ms", "95th percentile, ms"),
        (
            [
                entry.title,
                str(outcome.reads),
                f"{outcome.on_replica / max(outcome.reads, 1):.0%}",
                str(outcome.stale),
                str(outcome.failed),
                *(f"{seconds * 1000:.1f}" for seconds in outcome.median_and_95th),
            ]
            for entry in FRESHNESS
            for outcome in [results.freshness[entry.name]]
        ),
    )


def _who() -> str:
    return "\n".join(
        f"- {entry.title}: `benchmarks/contenders/{_module(entry)}.py`"
        for entry in (*CONTENDERS, *FLOORS, AUTOCOMMIT, NO_TOKENS)
    )


def _module(entry: Entry) -> str:
    return entry.target.partition(":")[0]

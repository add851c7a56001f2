"""`RESULTS.md`: what a run found, written by the command."""

import collections.abc
import dataclasses
import typing

from benchmarks.contenders.catalogue import AUTOCOMMIT, CONTENDERS, FLOORS, FRESHNESS, NO_TOKENS, OURS, Entry
from benchmarks.faults import FAULTS, LAG, PERIOD, THINKING, VISITORS, WRITES
from benchmarks.plan import CLIENTS, SURFACES, TOKEN_FIRST_READ, TOKEN_READ, TOKEN_WRITE
from benchmarks.results import Cell, Results
from benchmarks.servers import READING_CONNECTIONS
from benchmarks.verdicts import losses, orm_share, own_cost, rivals, shown, token_cost, verdicts
from benchmarks.work.operations import BY_NAME, OPERATIONS


Rows = collections.abc.Iterable[collections.abc.Sequence[str]]
BUSY_LOAD: typing.Final = 0.3
BUSY: typing.Final = """\
**The machine was busy before the run began ({load:.1f} processes for each core): the times below are not to be relied
on, and a figure that was missed may be the fault of the others.**"""
HOW: typing.Final = """\
A figure is the median of the rounds, with the quartiles in brackets. In each round all contenders take turns, in
another order each time, and a ratio is one of both runs of the same round."""
WHERE: typing.Final = """\
The whole run took {seconds:.0f} s. The primary, its two replicas, the contender and the clients share this machine, so
a round trip costs next to nothing here; over a network each one adds its latency."""
ORM_SHARE: typing.Final = """\
SQLAlchemy's `Session` alone, in the barest form (a statement that is built before, no `AsyncSession`, no container, no
choice of a server), takes {share} of the raw asyncpg pool's time for the read by key."""
REQUESTS: typing.Final = """\
Our time as a multiple of theirs: **below 1 we are faster**. The first line is our own time for one operation in µs,
with the processor time behind the stroke; with several clients it is the reciprocal of the throughput. Everyone has
{connections} connections for reads, and does the same statements."""
COST: typing.Final = """\
What it adds to a plain `AsyncSession` in autocommit on one engine, from the same kind of container: measured with 1 and
with 11 Core reads for each request, both in one process on the same replica, in turns of a few requests. The monitor's
time falls on both alike; what a choice among more replicas adds is in the last table but one."""
TOKENS: typing.Final = """\
What consistency tokens add to a request through FastAPI by one client. Right after a write no replica is known to have
it, so a read asks the replicas first; later reads find that in memory."""
CONSISTENCY: typing.Final = """\
All replicas lag by {lag:g} ms (`recovery_min_apply_delay`). Each visitor sends a request every {thinking:g} ms on
average, of which {writes:.0%} write; a read is stale when its visitor has written something newer."""
VISITS: typing.Final = """\
{visitors} visitors of each contender read over HTTP every {period:g} s, with their cookies, all contenders at once. One
replica, which everyone reads who reads from replicas, freezes or crashes, and comes back; then all replicas stop
replaying, and visitors write before they read. The slowest read counts to its end, or to the end of the script."""
COUNT: typing.Final = {1: "1 client", 10: "10 clients", 100: "100 clients"}


def summary(results: Results) -> str:
    """Return the verdict, and where others are better: what the command prints."""
    judged = table(
        ("figure to reach", "this run", "reached"),
        ([verdict.target, verdict.figure, "yes" if verdict.reached else "**no**"] for verdict in verdicts(results)),
    )
    busy = [BUSY.format(load=results.load)] if results.load > BUSY_LOAD else []
    share = ORM_SHARE.format(share=shown(orm_share(results)))
    return "\n\n".join(["## Verdict", *busy, judged, HOW, share, "## Where others are better", _losses(results)])


def render(results: Results) -> str:
    """Return the whole of `RESULTS.md`."""
    parts = [
        "# Side by side",
        "Written by `make bench`; not edited by hand. Another machine gives other figures: run it on yours.",
        table(("", ""), results.machine.items()),
        WHERE.format(seconds=results.seconds),
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


def _losses(results: Results) -> str:
    lines = [
        f"- **{loss.entry.title}** is faster in {loss.lost} of {loss.cells} measurements; the most in "
        f"“{BY_NAME[loss.worst.operation].title}” through {SURFACES[loss.worst.surface]} with "
        f"{COUNT[loss.worst.clients]}, where we take {shown(loss.ratio)} of its time."
        for loss in losses(results)
    ]
    ours = results.memory[OURS.name]
    smaller = [entry.title for entry in rivals() if results.memory[entry.name] < ours]
    if smaller:
        lines.append(f"- An open request holds less memory with {', '.join(smaller)}.")
    for fault in FAULTS:
        outcomes = results.faults[fault.name]
        mine = outcomes[OURS.name]
        for what, field in (("fails fewer reads", "failed"), ("shows fewer stale reads", "stale")):
            better = [e.title for e in rivals() if getattr(outcomes[e.name], field) < getattr(mine, field)]
            if better:
                lines.append(f"- While {fault.title}, {', '.join(better)} {what}.")
        faster = [entry.title for entry in rivals() if outcomes[entry.name].worst < mine.worst / 1.5]
        if faster:
            lines.append(f"- While {fault.title}, the slowest read is clearly faster with {', '.join(faster)}.")
    return "\n".join(lines) or "Nowhere in this run."


def _sessions_and_frameworks(results: Results) -> collections.abc.Iterator[str]:
    yield "## Requests"
    yield "![The time of a keyed read, by contender](figures/keyed-read.svg)"
    yield "![Requests per second over HTTP, by contender](figures/requests.svg)"
    yield REQUESTS.format(connections=READING_CONNECTIONS)
    for surface, surface_title in SURFACES.items():
        for clients in CLIENTS:
            cells = [Cell(surface=surface, operation=operation.name, clients=clients) for operation in OPERATIONS]
            if (cells[0], OURS.name) not in results.samples:
                continue
            yield f"### Through {surface_title}, {COUNT[clients]}"
            yield table(
                ("", *(operation.title for operation in OPERATIONS)),
                (
                    [f"{OURS.title}, µs", *(_absolute(results, cell) for cell in cells)],
                    *(
                        [entry.title, *(_ratio(results, cell, entry) for cell in cells)]
                        for entry in (*rivals(), *FLOORS)
                        if (cells[0], entry.name) in results.samples
                    ),
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
    return shown(results.ratio(cell, entry.rival_of, entry.name))


def _absolute(results: Results, cell: Cell) -> str:
    return f"{results.time(cell, OURS.name).median * 1e6:.0f} / {results.cpu(cell, OURS.name).median * 1e6:.0f}"


def _costs(results: Results) -> collections.abc.Iterator[str]:
    yield "## What the library itself costs"
    yield COST
    costs = {title: own_cost(results, measure) for measure, title in (("cpu", "processor time"), ("wall", "wall time"))}
    yield table(
        ("", "for a request, µs", "for a statement, µs", "share of a request with one statement"),
        (
            [
                title,
                *(
                    shown(
                        dataclasses.replace(spread, **{f: getattr(spread, f) * 1e6 for f in ("median", "low", "high")}),
                        0,
                    )
                    for spread in (cost.request, cost.statement)
                ),
                f"{cost.share:.0%}",
            ]
            for title, cost in costs.items()
        ),
    )
    yield TOKENS
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
            [strategy, *(f"{seconds * 1e6:.1f}" for seconds in found.values())]
            for strategy, found in results.choices.items()
        ),
    )
    yield "Memory that an open request holds after one keyed read, connections not counted:"
    yield table(("", "bytes"), ([entry.title, f"{results.memory[entry.name]:.0f}"] for entry in CONTENDERS))


def _faults(results: Results) -> collections.abc.Iterator[str]:
    yield "## Faults"
    yield "![What readers meet while replicas freeze, crash and lag](figures/faults.svg)"
    yield VISITS.format(visitors=VISITORS, period=PERIOD)
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
    yield CONSISTENCY.format(lag=LAG * 1000, thinking=THINKING * 1000, writes=WRITES)
    yield table(
        ("", "reads", "on a replica", "stale", "failed"),
        (
            [
                entry.title,
                str(outcome.reads),
                f"{outcome.on_replica / max(outcome.reads, 1):.0%}",
                str(outcome.stale),
                str(outcome.failed),
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

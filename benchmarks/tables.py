"""`RESULTS.md`, the limits, and the figures in the README: all computed from the results."""

import collections.abc
import re
import typing

from benchmarks.contenders.catalogue import (
    ADVANCED_ALCHEMY,
    AUTOCOMMIT,
    BY_NAME,
    CONTENDERS,
    DRIVERS,
    GET_BIND,
    NO_TOKENS,
    OURS,
    PINNED,
    POOL,
    RECIPE,
    RIVALS,
    Entry,
)
from benchmarks.faults import CLIENTS as FAULT_CLIENTS
from benchmarks.faults import CONSTANT_LAG, CRASH, FAULTS, FREEZE, PERIOD
from benchmarks.plan import (
    BUSY_GET,
    CLIENTS,
    FULL,
    KEYED_READ,
    OTHER_DRIVERS,
    ROUTING,
    SAME_REPLICA,
    SURFACES,
    TOKEN_READ,
    TOKEN_WRITE,
)
from benchmarks.results import Cell, Outcome, Results, Spread
from benchmarks.servers import READING_CONNECTIONS, WRITING_CONNECTIONS
from benchmarks.work.operations import BY_NAME as BY_OPERATION
from benchmarks.work.operations import OPERATIONS


Rows = collections.abc.Iterable[collections.abc.Sequence[str]]

METHOD: typing.Final = """\
The limits are the project's own. A figure is the median of the rounds, with the quartiles in brackets. In each round
all contenders take a turn, in a different order each time, and a ratio compares two runs of the same round.

For the limits of the read by key, all contenders read from the same replica. In the tables of requests,
modern-di-replicas alternates between two replicas while the recipe and the asyncpg pool stay on one, so it finds the
caches of two server processes cold. The asyncpg pool resets a connection in a separate round trip at its release."""
MACHINE: typing.Final = """\
The run took {seconds:.0f} s. The primary, two replicas, the contenders and their clients share the machine, so a round
trip costs next to nothing; over a network, each adds its latency. {processors}"""
DIVIDED: typing.Final = """\
The contenders run on one processor, the servers and clients on the others: a server on its client's processor answers
up to three times faster, and where the scheduler puts it changes by chance."""
TOGETHER: typing.Final = """\
Everything runs on all processors because this system does not let a process choose, so ratios vary more than
necessary: a server on its client's processor answers faster than on another one."""
REQUESTS: typing.Final = """\
Our time / our processor time as a multiple of theirs: **below 1 we are faster**. Our own rows are the time / the
processor time of one operation in µs; with 100 clients, the time is the inverse of the rate. Processor time is that of
the contender's process. Advanced Alchemy is compared with modern-di-replicas on SQLAlchemy 2.0, the newest version it
supports.

All contenders run the same statements on {reading} connections for reads and {writing} for writes. Clients send no
consistency token yet: see the limits for its cost."""
ROUND_TRIPS: typing.Final = """\
In a busy application; after a second without use, a connection to the primary is pinged before its first statement."""
OTHER_DRIVERS_TEXT: typing.Final = """\
The time / the processor time of one operation by one client, and those of asyncpg without a pooler as a multiple of
them. Behind the pooler, asyncpg reads in transactions, psycopg in autocommit."""
FAULT: typing.Final = """\
{clients} clients of each contender send an HTTP request every {period:g} s, with cookies, to all contenders at once.
One replica, the one that every contender reads from, freezes or crashes and comes back; then both replicas stop
replaying, and clients write before each read; then both lag by a constant time (`recovery_min_apply_delay`), and
clients write before every tenth read. A read is stale when the same client has written something newer. The slowest
read counts to its end or to the end of the script. Each fault lasts {seconds:g} s and happens once, so there is no
spread."""


class Verdict(typing.NamedTuple):
    """A limit, and whether the run met it."""

    limit: str
    figure: str
    is_kept: bool


def verdicts(results: Results) -> list[Verdict]:
    """Compare a run with the project's limits."""

    def at_most(what: str, limit: float, figure: Spread, digits: int = 2) -> Verdict:
        return Verdict(f"{what}: at most {limit:.{digits}f}", figure.show(digits), figure.median <= limit)

    def none(what: str, count: int, reads: int) -> Verdict:
        return Verdict(f"{what}: 0", f"{count} of {reads}", not count)

    same_replica = results.cells[SAME_REPLICA]
    trips = results.round_trips[KEYED_READ.operation][OURS.name]
    ours = {fault: results.faults[fault.name][OURS.name] for fault in FAULTS}
    frozen, (share, pinned) = ours[FREEZE].slowest, _replica_shares(results)
    return [
        at_most(f"ORM read by key, of the time of the {RECIPE.title}", 0.45, same_replica[RECIPE.name].ratio),
        at_most("ORM read by key, of the time of the asyncpg pool", 1.50, same_replica[POOL.name].ratio),
        at_most(
            f"Core read, of the time of an {AUTOCOMMIT.title}", 1.12, results.cells[ROUTING][AUTOCOMMIT.name].ratio
        ),
        at_most(
            "writing request, of the time of one without tokens", 1.15, results.cells[TOKEN_WRITE][NO_TOKENS.name].ratio
        ),
        at_most("reading request with a token, of one without", 1.05, results.cells[TOKEN_READ][NO_TOKENS.name].ratio),
        at_most(
            f"GET through FastAPI with 100 clients, of the time of the {RECIPE.title}",
            0.80,
            results.cells[BUSY_GET][RECIPE.name].ratio,
        ),
        Verdict("round trips of a read by key: 1", str(trips), trips == 1),
        *(none(f"failed reads while {fault.title}", each.failed, each.reads) for fault, each in ours.items()),
        *(
            none(f"stale reads while {fault.title}", each.stale, each.reads)
            for fault, each in ours.items()
            if fault.writes
        ),
        Verdict("slowest read while a replica freezes: at most 2.5 s", f"{frozen:.2f} s", frozen <= 2.5),
        Verdict(f"reads on replicas while {CONSTANT_LAG.title}: at least 70 %", f"{share:.0%}", share >= 0.7),
        Verdict(f"more of them than with “{PINNED.title}”", f"{share:.0%}, {pinned:.0%}", share > pinned),
    ]


def _replica_shares(results: Results) -> tuple[float, float]:
    outcomes = results.faults[CONSTANT_LAG.name]
    return outcomes[OURS.name].replica_share, outcomes[PINNED.name].replica_share


def summary(results: Results) -> str:
    """Return the summary that the command prints: the limits, and where others are better."""
    limits = ([each.limit, each.figure, "yes" if each.is_kept else "**no**"] for each in verdicts(results))
    parts = [
        *("## Limits", table(("limit", "this run", "kept"), limits), METHOD),
        *("## Where others are better", "\n".join(_better(results)) or "Nowhere in this run."),
    ]
    return "\n\n".join(parts)


def render(results: Results) -> str:
    """Return `RESULTS.md`."""
    processors = DIVIDED if results.is_divided else TOGETHER
    parts = [
        "# Benchmark results",
        "Generated from `results.json` by `make bench`. Other machines give other figures: run it on yours.",
        table(("", ""), results.machine.items()),
        MACHINE.format(seconds=results.seconds, processors=processors),
        summary(results),
        *_requests(results),
        *_drivers(results),
        *_faults(results),
        "## Contenders",
        "\n".join(
            f"- {entry.title}: `benchmarks/contenders/{entry.target.partition(':')[0]}.py`"
            for entry in BY_NAME.values()
        ),
    ]
    return "\n\n".join(parts) + "\n"


def table(head: collections.abc.Sequence[str], rows: Rows) -> str:
    """Return a Markdown table with figures on the right."""
    lines = [head, ["---", *(["---:"] * (len(head) - 1))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _ratio(results: Results, cell: Cell, entry: Entry) -> str:
    found = results.cells[cell].get(entry.name)
    return f"{found.ratio.show()} / {found.cpu_ratio:.2f}" if found else "failed"


def _absolute(results: Results, cell: Cell, entry: Entry) -> str:
    found = results.cells[cell].get(entry.name)
    return f"{found.time.median:.0f} / {found.cpu.median:.0f}" if found else "failed"


def _better(results: Results) -> collections.abc.Iterator[str]:
    for entry in RIVALS:
        cells = [cell for cell, found in results.cells.items() if cell.surface in SURFACES and entry.name in found]
        ratios = {cell: results.cells[cell][entry.name].ratio for cell in cells}
        lost = {cell: ratio for cell, ratio in ratios.items() if ratio.low > 1}
        if lost:
            worst = max(lost, key=lambda cell: lost[cell].median)
            where = f"through {SURFACES[worst.surface]} with {_clients(worst.clients)}"
            yield (
                f"- **{entry.title}** is faster in {len(lost)} of {len(cells)} measurements beyond the spread; most in "
                f"“{BY_OPERATION[worst.operation].title}” {where}, where we take {lost[worst].show()} "
                "of its time."
            )
    for fault in FAULTS:
        outcomes = results.faults[fault.name]
        for what, field, factor in (
            ("fewer failed reads", "failed", 1.0),
            ("fewer stale reads", "stale", 1.0),
            ("a clearly faster slowest read", "slowest", 1.5),
        ):
            limits = {entry: getattr(outcomes[entry.rival_of], field) / factor for entry in RIVALS}
            better = [entry.title for entry, ours in limits.items() if getattr(outcomes[entry.name], field) < ours]
            if better:
                yield f"- While {fault.title}, {what}: {', '.join(better)}."


def _requests(results: Results) -> collections.abc.Iterator[str]:
    yield "## Requests"
    yield "![Time of a read by key](figures/keyed-read.svg)"
    yield REQUESTS.format(reading=READING_CONNECTIONS, writing=WRITING_CONNECTIONS)
    titles = [operation.title for operation in OPERATIONS]
    for surface, surface_title in SURFACES.items():
        for clients in CLIENTS:
            cells = [Cell(surface, operation.name, clients) for operation in OPERATIONS]
            yield f"### Through {surface_title}, {_clients(clients)}"
            yield table(
                ("", *titles),
                (
                    [entry.title, *(_ratio(results, cell, entry) for cell in cells)]
                    if entry in RIVALS
                    else [f"{entry.title}, µs", *(_absolute(results, cell, entry) for cell in cells)]
                    for entry in CONTENDERS
                ),
            )
    failed = {
        entry.title: sum(found[entry.name].failed for found in results.cells.values() if entry.name in found)
        for entry in CONTENDERS
    }
    if any(failed.values()):
        yield "Failed operations: " + ", ".join(f"{title} {count}" for title, count in failed.items() if count) + "."
    yield "### Round trips of one operation"
    yield ROUND_TRIPS
    counts = [results.round_trips[operation.name] for operation in OPERATIONS]
    yield table(("", *titles), ([entry.title, *(str(each[entry.name]) for each in counts)] for entry in CONTENDERS))


def _drivers(results: Results) -> collections.abc.Iterator[str]:
    found = results.cells.get(OTHER_DRIVERS, {})
    entries = [entry for entry in DRIVERS if entry.name in found]
    if not entries:  # results of an earlier version
        return
    yield "## Drivers and poolers"
    yield OTHER_DRIVERS_TEXT
    title = BY_OPERATION[OTHER_DRIVERS.operation].title
    yield table(
        ("", f"{title}, µs", f"{title}, ratio"),
        (
            [entry.title, _absolute(results, OTHER_DRIVERS, entry), _ratio(results, OTHER_DRIVERS, entry)]
            for entry in (OURS, *entries)
        ),
    )


def _faults(results: Results) -> collections.abc.Iterator[str]:
    yield "## Faults"
    yield "![Slowest, failed and stale reads during faults](figures/faults.svg)"
    yield FAULT.format(clients=FAULT_CLIENTS, period=PERIOD, seconds=FULL.fault[1])
    for fault in FAULTS:
        yield f"### While {fault.title}"
        outcomes = results.faults[fault.name]
        rows = ([BY_NAME[name].title, *_outcome(each)] for name, each in outcomes.items())
        yield table(("", "reads", "failed", "stale", "on a replica", "slowest, s", "failed writes"), rows)


def _outcome(each: Outcome) -> list[str]:
    counts = (each.reads, each.failed, each.stale, f"{each.replica_share:.0%}")
    return [*map(str, counts), f"{each.slowest:.2f}", str(each.failed_writes)]


def _clients(count: int) -> str:
    return f"{count} client{'s' if count > 1 else ''}"


README_FIGURE: typing.Final = re.compile(r"(<!--([a-z-]+)-->)[\d.]+")
"""A comment with the name of a figure, and the figure."""


def update(readme: str, results: Results) -> str:
    """Return the README with updated figures."""
    same_replica, trips = results.cells[SAME_REPLICA], results.round_trips[KEYED_READ.operation]
    freeze, crash = results.faults[FREEZE.name], results.faults[CRASH.name]
    ours = [results.faults[fault.name][OURS.name] for fault in FAULTS]
    share, pinned = _replica_shares(results)
    figures = {
        "read-of-recipe": f"{same_replica[RECIPE.name].ratio.median:.2f}",
        "get-of-recipe": f"{1 / results.cells[BUSY_GET][RECIPE.name].ratio.median:.2f}",
        "round-trips": str(trips[OURS.name]),
        "round-trips-of-recipe": str(trips[RECIPE.name]),
        "round-trips-of-get-bind": str(trips[GET_BIND.name]),
        "round-trips-of-advanced-alchemy": str(trips[ADVANCED_ALCHEMY.name]),
        "failed": str(sum(each.failed for each in ours)),
        "stale": str(sum(each.stale for each in ours)),
        "reads": str(sum(each.reads for each in ours)),
        "freeze": f"{freeze[OURS.name].slowest:.1f}",
        "freeze-of-recipe": f"{freeze[RECIPE.name].slowest:.1f}",
        "crash": str(crash[OURS.name].failed),
        "crash-of-get-bind": str(crash[GET_BIND.name].failed),
        "crash-of-advanced-alchemy": str(crash[ADVANCED_ALCHEMY.name].failed),
        "on-replica": f"{100 * share:.0f}",
        "on-replica-of-pin": f"{100 * pinned:.0f}",
    }
    return README_FIGURE.sub(lambda found: found[1] + figures[found[2]], readme)

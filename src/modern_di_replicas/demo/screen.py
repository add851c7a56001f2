"""The output of the demo, in ASCII and 80 columns, for a terminal, a pipe or a log."""

import collections.abc
import contextlib
import pathlib
import sys
import textwrap
import time
import typing

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from modern_di_replicas.demo.breaking import Experiment
from modern_di_replicas.demo.rows import Column, print_header, print_row
from modern_di_replicas.demo.scenario import Exchange
from modern_di_replicas.demo.topology import Server
from modern_di_replicas.demo.traffic import Answer
from modern_di_replicas.errors import DOCS_URL, ReplicasError
from modern_di_replicas.routing.decision import PRIMARY
from modern_di_replicas.testing import LocalCluster


LOWEST_ERROR: typing.Final = 400
WIDTH: typing.Final = 80
LINE: typing.Final = 72
"""Marks in a line."""
MARKS: typing.Final = ("P", "1", "2", "3")
"""The marks of the primary and the replicas, in their initial roles."""
SHOWN_REASONS: typing.Final = 3


TOPOLOGY: typing.Final = (
    Column(title="server", width=10),
    Column(title="port", width=5),
    Column(title="in recovery", width=11),
    Column(title="WAL receiver", width=12),
    Column(title="position", width=11),
    Column(title="serves"),
)
REQUESTS: typing.Final = (
    Column(title="request", width=15),
    Column(title="marker", width=13),
    Column(title="intent", width=6),
    Column(title="server", width=9),
    Column(title="port", width=5),
    Column(title="recovery", width=8),
    Column(title="why"),
)


class Screen:
    """Prints; each method is one part of the output.

    Args:
        console: where to print.
        errors: where to print errors.

    """

    def __init__(self, *, console: Console, errors: Console) -> None:
        self._console = console
        self._errors = errors
        self._marks: dict[int, str] = {}
        self._names: dict[int, str] = {}
        self._column = 0

    @contextlib.contextmanager
    def start_of_cluster(self) -> collections.abc.Iterator[collections.abc.Callable[[str], None]]:
        """Return a function that shows the steps of the start, each with the seconds since the first."""
        self._heading("Starting PostgreSQL: a primary and two streaming replicas")
        began = time.perf_counter()
        with self._console.status("find the programs", spinner="line") as status:

            def show_step(step: str) -> None:
                self._say(f"  {time.perf_counter() - began:4.1f} s  {step}", style="dim")
                status.update(Text(step))

            yield show_step
        self._say(f"  {time.perf_counter() - began:4.1f} s  ready", style="green")

    def show_topology(self, servers: collections.abc.Sequence[Server]) -> None:
        self._heading(f"The servers, as they describe themselves (PostgreSQL {servers[0].version})")
        print_header(self._console, TOPOLOGY)
        for server in servers:
            cells = [
                server.name,
                str(server.port),
                str(server.in_recovery).lower(),
                server.receiving or "-",
                server.lsn,
                f"reads: {', '.join(server.groups)}" if server.groups else "writes",
            ]
            print_row(self._console, TOPOLOGY, cells, style=_colour(in_recovery=server.in_recovery))

    def show_application(self, url: str) -> None:
        self._heading(f"Requests to the application at {url}")
        self._say("  Source: modern_di_replicas/demo/application.py. After each handler its session", style="dim")
        self._say("  asked the server: port is inet_server_port(), recovery pg_is_in_recovery().", style="dim")
        self._say("  All are from one client, without waits for the replicas: a cookie carries the", style="dim")
        self._say("  position of its last write, and its reads use a server that has reached it.\n", style="dim")
        print_header(self._console, REQUESTS)

    def show_flask(self) -> None:
        self._heading("The same in synchronous code, with Flask and psycopg")
        self._say("  Source: modern_di_replicas/demo/flask_application.py. Another client.\n", style="dim")
        print_header(self._console, REQUESTS)

    def show_exchange(self, exchange: Exchange) -> None:
        report = exchange.report
        cells = [
            f"{exchange.method} {exchange.path}",
            report.marker or "-",
            report.intent,
            report.server,
            str(report.port),
            str(report.in_recovery).lower(),
            explain(exchange),
        ]
        print_row(self._console, REQUESTS, cells, style=_colour(in_recovery=report.in_recovery))

    def show_log(self, words: str) -> None:
        self._end_line()
        self._console.print(Padding(Text(f"log: {words}", style="magenta"), (0, 0, 0, 2), expand=False))

    def show_summary(self, exchanges: collections.abc.Sequence[Exchange]) -> None:
        replicas = sum(exchange.report.in_recovery for exchange in exchanges)
        self._heading("What you saw")
        self._say(
            f"  {len(exchanges)} requests: {replicas} answered by replicas, {len(exchanges) - replicas} by the primary."
        )
        self._say("  No handler names a server: the HTTP method decides, a marker overrides it, and")
        self._say("  an undeclared write moves to the primary before it is sent. A client")
        self._say("  sees its writes: on a replica that has them, or, if none has, on the primary.")

    def show_traffic(self, cluster: LocalCluster) -> None:
        """Announce the faults, and explain the marks of requests."""
        self._marks = {server.port: mark for server, mark in zip(cluster.servers, MARKS, strict=False)}
        self._names = {server.port: server.name for server in cluster.servers}
        legend = ", ".join(f"{mark} {self._names[port]}" for port, mark in self._marks.items())
        self._heading("Now the servers break, with requests flowing")
        self._say("  Each mark is one read, by the server that answered it:", style="dim")
        self._say(f"  {legend}, x failed. A writer runs as well.", style="dim")

    def show_experiment(self, title: str) -> None:
        self._say(f"\n  {title}", style="bold")

    def show_answer(self, answer: Answer) -> None:
        if self._column == LINE:
            self._end_line()
        if not self._column:
            self._console.print("  ", end="")
        self._column += 1
        mark = "x" if answer.port is None else self._marks[answer.port]
        style = "bold red" if answer.failed else "cyan" if answer.server != PRIMARY else "yellow"
        self._console.print(Text(mark, style=style), end="")

    def _end_line(self) -> None:
        if self._column:
            self._console.print()
            self._column = 0

    def show_outcome(self, experiment: Experiment) -> None:
        self._end_line()
        answered = ", ".join(
            f"{count} by {self._names[port]}" for port, count in experiment.by_port.most_common() if port is not None
        )
        self._say_in_lines(
            f"{len(experiment.reads)} reads, {experiment.failed} failed, the slowest {experiment.slowest:.2f} s: "
            f"{answered}",
            style="red" if experiment.failed else "green",
        )
        for reason, count in experiment.reasons.most_common(SHOWN_REASONS):
            self._say_in_lines(f"{count} x {reason}", style="dim")

    def show_result(self, experiments: collections.abc.Sequence[Experiment]) -> None:
        """Print how many of all reads failed."""
        reads, failed = sum(len(one.reads) for one in experiments), sum(one.failed for one in experiments)
        self._say(
            f"\n  A freeze, a lag, a crash and a failover: {failed} of {reads} reads failed.",
            style="bold red" if failed else "bold green",
        )
        for experiment in experiments:
            if not experiment.went_well:
                self._say(f"  In {experiment.title!r} the application did not notice in time.", style="bold red")

    def show_next_steps(self) -> None:
        self._heading("What next")
        self._say(f"  {serve_command()}\n      keeps it running, with a live page and commands that break servers")
        self._say(f"  README.md and {DOCS_URL}\n      how to use it in your application")

    def show_invitation(self, url: str, lines: collections.abc.Sequence[str]) -> None:
        self._heading(f"Serving at {url} until Ctrl-C")
        self._say("  The headers X-... name the server that answered. Try:\n", style="dim")
        for line in lines:
            self._say(line)
        self._say("\n  curl keeps no cookies, so a GET right after a write may be too early for its", style="dim")
        self._say("  replica. With --cookie-jar FILE --cookie FILE it sends the token.", style="dim")

    def show_end(self) -> None:
        self._say("\nThe servers are stopped and their files removed.", style="dim")

    def show_interruption(self) -> None:
        self._errors.print("\nInterrupted: the servers are stopped and their files removed.", markup=False)

    def show_failure(self, error: ReplicasError) -> None:
        self._errors.print("\nThe demo cannot run, and has left nothing behind.", style="bold red")
        self._errors.print(str(error), markup=False, highlight=False, soft_wrap=True)

    def _heading(self, words: str) -> None:
        self._say(f"\n{words}", style="bold")

    def _say_in_lines(self, words: str, *, style: str) -> None:
        lines = textwrap.wrap(words, WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 6)
        self._say("\n".join(lines), style=style)

    def _say(self, words: str, *, style: str | None = None) -> None:
        # Without wrapping: a long line can still be copied as one.
        self._console.print(Text(words, style=style or ""), soft_wrap=True)


def explain(exchange: Exchange) -> str:
    """Return in a few words why a request used its server."""
    report = exchange.report
    if report.reason in (report.marker, f"{report.marker}, {report.level}"):
        why = f"marker: {report.level}" if report.level else f"marker over {exchange.method}"
    elif report.reason == exchange.method:
        why = f"{exchange.method} {report.intent}s"
    else:
        why = report.reason
    if report.group:
        why += f", group {report.group}"
    if report.in_recovery and report.has_token and not report.level:
        why += ", own writes included"
    return f"{why} ({exchange.status})" if exchange.status >= LOWEST_ERROR else why


def _colour(*, in_recovery: bool) -> str:
    return "cyan" if in_recovery else "yellow"


def serve_command() -> str:
    """Return the command to keep it running, with this interpreter if others lack the package."""
    python, here = pathlib.Path(sys.executable), pathlib.Path.cwd()
    name = str(python.relative_to(here)) if python.is_relative_to(here) else "python"
    return f"{name} -m modern_di_replicas demo --serve"

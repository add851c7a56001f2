import dataclasses
import io
import typing

import pytest
from rich.console import Console

from modern_di_replicas.demo.breaking import Experiment
from modern_di_replicas.demo.report import Report
from modern_di_replicas.demo.scenario import Exchange, curl_lines
from modern_di_replicas.demo.screen import Screen, explain
from modern_di_replicas.demo.topology import Server
from modern_di_replicas.demo.traffic import Answer
from modern_di_replicas.routing.decision import PRIMARY
from modern_di_replicas.testing import LocalCluster


COLUMNS = 80


class Paper:
    """A screen whose text can be read."""

    def __init__(self, *, is_terminal: bool = False) -> None:
        self._printed = io.StringIO()
        console = Console(file=self._printed, width=COLUMNS, force_terminal=is_terminal)
        self.screen = Screen(console=console, errors=console)

    @property
    def text(self) -> str:
        return self._printed.getvalue()


def exchange(method: str = "GET", **facts: object) -> Exchange:
    status = facts.pop("status", 200)
    report = {
        "port": 60001,
        "in_recovery": True,
        "server": "replica-1",
        "intent": "read",
        "group": "",
        "marker": "",
        "level": "",
        "has_token": False,
        "reason": method,
        **facts,
    }
    return Exchange(method=method, path="/users/1", status=status, report=Report(**report))  # type: ignore[arg-type]


LONGEST = exchange(
    "DELETE", marker="@write_intent", group="analytics", status=404, reason="@write_intent", has_token=True
)
SERVER = Server(
    name="replica-1",
    port=60001,
    in_recovery=True,
    lsn="0/3000148",
    version="18.6",
    receiving="streaming",
    groups=("default", "analytics"),
)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (exchange("GET"), "GET reads"),
        (exchange("POST", intent="write"), "POST writes"),
        (exchange("GET", intent="write", marker="@write_intent", reason="@write_intent"), "marker over GET"),
        (exchange("GET", reason="no replica is healthy"), "no replica is healthy"),
        (
            exchange("POST", marker="@read_intent", reason="@read_intent", group="analytics"),
            "marker over POST, group analytics",
        ),
        (
            exchange("GET", intent="read", marker="@read_intent", reason="@read_intent", level="STRONG"),
            "marker: STRONG",
        ),
        (exchange("GET", status=404), "GET reads (404)"),
        (exchange("GET", has_token=True), "GET reads, own writes included"),
        (exchange("GET", has_token=True, in_recovery=False, reason="GET, escalated: x"), "GET, escalated: x"),
        (
            exchange("GET", has_token=True, marker="@read_intent", reason="@read_intent", level="EVENTUAL"),
            "marker: EVENTUAL",
        ),
    ],
)
def test_the_reason_of_a_row_is_that_of_its_response(given: Exchange, why: str) -> None:
    """An unknown reason is shown unchanged."""
    assert explain(given) == why


def test_everything_but_the_curl_lines_fits_into_80_columns_of_ascii() -> None:
    """It is readable in a terminal, a pipe and a log."""
    paper = Paper()
    with paper.screen.start_of_cluster() as show_step:
        show_step("replica-1: base backup")
    paper.screen.show_topology([SERVER])
    paper.screen.show_application("http://127.0.0.1:60000")
    paper.screen.show_exchange(LONGEST)
    paper.screen.show_summary([LONGEST])
    paper.screen.show_next_steps()
    paper.screen.show_invitation("http://127.0.0.1:60000", [])
    paper.screen.show_end()
    assert paper.text.isascii()
    assert [line for line in paper.text.splitlines() if len(line) > COLUMNS] == []


def test_a_curl_line_is_one_line() -> None:
    """A wrapped line could not be copied."""
    paper = Paper()
    lines = curl_lines("http://127.0.0.1:60000", 1)
    assert max(len(line) for line in lines) > COLUMNS
    paper.screen.show_invitation("http://127.0.0.1:60000", lines)
    assert set(lines) <= set(paper.text.splitlines())


def test_a_terminal_shows_colours_and_a_pipe_does_not() -> None:
    """Escape sequences belong on terminals only."""
    terminal, pipe = Paper(is_terminal=True), Paper()
    terminal.screen.show_exchange(LONGEST)
    pipe.screen.show_exchange(LONGEST)
    assert "\x1b[" in terminal.text
    assert "\x1b[" not in pipe.text


def test_the_steps_of_the_start_are_visible_in_a_pipe_too() -> None:
    """Each step has a line with its duration."""
    paper = Paper()
    with paper.screen.start_of_cluster() as show_step:
        show_step("primary: initdb")
    steps = paper.text.splitlines()[-2:]
    assert [step.split(" s  ")[1] for step in steps] == ["primary: initdb", "ready"]


class Named:
    """Stands in for a cluster: servers with names and ports."""

    def __init__(self) -> None:
        self.servers = [Port("primary", 1), Port("replica-1", 2), Port("replica-2", 3)]


@dataclasses.dataclass
class Port:
    name: str
    port: int


def answer(port: int | None, reason: str = "GET", server: str = "replica-1") -> Answer:
    return Answer(server=server, port=port, reason=reason, seconds=0.5)


def test_each_read_is_a_mark_and_failures_are_counted() -> None:
    """Marked by the server that answered; failures are shown too."""
    paper = Paper()
    paper.screen.show_traffic(typing.cast(LocalCluster, Named()))
    paper.screen.show_experiment("replica-1 freezes")
    reads = [answer(2), answer(1, "GET, escalated: replica-1 failed", PRIMARY), answer(None, "ReadTimeout", "")] * 40
    for read in reads:
        paper.screen.show_answer(read)
    experiment = Experiment(title="replica-1 freezes", reads=reads, went_well=False)
    paper.screen.show_outcome(experiment)
    paper.screen.show_result([experiment])
    assert "P primary, 1 replica-1, 2 replica-2" in paper.text
    assert "\n  1Px1Px" in paper.text
    assert "120 reads, 40 failed, the slowest 0.50 s: 40 by replica-1, 40 by primary" in paper.text
    assert "40 x GET, escalated: replica-1 failed" in paper.text
    assert "40 of 120 reads failed" in paper.text
    assert "did not notice in time" in paper.text
    assert [line for line in paper.text.splitlines() if len(line) > COLUMNS] == []


def test_the_result_of_an_act_is_wrapped_and_not_cut() -> None:
    """With three servers it is longer than a line; the last count used to be cut."""
    paper = Paper()
    paper.screen.show_traffic(typing.cast(LocalCluster, Named()))
    reads = [answer(1, f"GET, escalated: {'long ' * 15}reason"), *[answer(2)] * 123, *[answer(3)] * 45]
    paper.screen.show_outcome(Experiment(title="replica-1 crashes", reads=reads, went_well=True))
    shown = " ".join(paper.text.split())
    assert "123 by replica-1, 45 by replica-2, 1 by primary 1 x GET, escalated: long" in shown
    assert shown.endswith("long reason")
    assert [line for line in paper.text.splitlines() if len(line) > COLUMNS] == []


def test_a_log_line_does_not_continue_a_line_of_marks() -> None:
    """It starts a new line, and so does the next mark."""
    paper = Paper()
    paper.screen.show_traffic(typing.cast(LocalCluster, Named()))
    paper.screen.show_answer(answer(2))
    paper.screen.show_log("WARNING: replica-1 is down")
    paper.screen.show_answer(answer(3))
    lines = [line.rstrip() for line in paper.text.splitlines()]
    assert lines[-3:] == ["  1", "  log: WARNING: replica-1 is down", "  2"]

import io

import pytest
from rich.console import Console

from modern_di_replicas.demo.report import Report
from modern_di_replicas.demo.scenario import Exchange, curl_lines
from modern_di_replicas.demo.screen import Screen, explain
from modern_di_replicas.demo.topology import Server


COLUMNS = 80


class Paper:
    """A screen that can be read."""

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
    """A reason that the demo does not know is shown as it is."""
    assert explain(given) == why


def test_everything_but_the_curl_lines_fits_into_80_columns_of_ascii() -> None:
    """It reads the same in a terminal, a pipe and a log."""
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
    """A wrapped one could not be copied."""
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
    """Each step has a line with its time."""
    paper = Paper()
    with paper.screen.start_of_cluster() as show_step:
        show_step("primary: initdb")
    steps = paper.text.splitlines()[-2:]
    assert [step.split(" s  ")[1] for step in steps] == ["primary: initdb", "ready"]

"""Messages on the terminal while the demo serves."""

import io

from rich.console import Console

from modern_di_replicas.demo.answers import Answers
from modern_di_replicas.demo.faults import MEANINGS
from modern_di_replicas.demo.live.picture import ServerPicture


COLUMNS = 80


def picture(*, up: bool, lag: float | None) -> ServerPicture:
    return ServerPicture(
        name="replica-1",
        port=60001,
        state="replay held",
        faults=("freeze",),
        role="left behind",
        up=up,
        serves_reads=up,
        lag_seconds=lag,
        lag_bytes=None,
        in_use=15,
        answered=1_000_000,
    )


def test_every_answer_fits_into_80_columns_of_ascii_and_the_invitation_names_each_command() -> None:
    """It is readable in a terminal, a pipe and a log."""
    printed = io.StringIO()
    answers = Answers(Console(file=printed, width=COLUMNS))
    answers.show_invitation("http://127.0.0.1:60000")
    answers.show_servers([picture(up=True, lag=12345.678), picture(up=False, lag=None)])
    answers.show_done("freeze replica-1: done")
    answers.show_refusal("which server?")
    text = printed.getvalue()
    assert text.isascii()
    assert [line for line in text.splitlines() if len(line) > COLUMNS] == []
    for command in [*MEANINGS, "servers", "help"]:
        assert f"    {command}" in text
    assert "http://127.0.0.1:60000/\n" in text
    up, down = [line.rstrip() for line in text.splitlines() if line.startswith("replica-1 ")]
    assert up == "replica-1  60001 replay held left behind yes   12345.68 15     1000000"
    assert down.split() == ["replica-1", "60001", "replay", "held", "down", "no", "-", "15", "1000000"]

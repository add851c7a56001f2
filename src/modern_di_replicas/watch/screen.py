"""Render the topology for a terminal of 80 columns."""

import time
import typing

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from modern_di_replicas.routing.snapshot import Role, ServerState
from modern_di_replicas.watch.history import KEPT, History, sparkline


_STYLES: typing.Final = {
    Role.PRIMARY: "yellow",
    Role.STANDBY: "cyan",
    Role.ALIAS: "yellow",
    Role.FENCED: "bold red",
    Role.FOREIGN: "bold red",
    Role.LEFT_BEHIND: "bold red",
    Role.UNKNOWN: "bold red",
}


def render(history: History, *, serving: frozenset[str], now: float) -> RenderableType:
    """Return the text.

    Args:
        history: the recent history.
        serving: the names of the replicas that currently serve reads.
        now: seconds since 1970.

    """
    title = Text(f"modern-di-replicas watch  {_clock(now)}\n", style="bold")
    return Group(title, _servers(history, serving), Text("\nEvents", style="bold"), *_events(history))


def _servers(history: History, serving: frozenset[str]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for name, width, justify in (
        ("", 1, "left"),
        ("server", 21, "left"),
        ("role", 11, "left"),
        ("lag", 8, "right"),
        ("bytes", 10, "right"),
        (f"0 .. {history.scale:.1f} s", KEPT, "left"),
    ):
        table.add_column(name, width=width, justify=typing.cast(typing.Any, justify), overflow="fold", no_wrap=False)
    for name, state in ({} if history.snapshot is None else history.snapshot.servers).items():
        table.add_row(*_cells(history, name, state, serving=name in serving))
    return table


def _cells(history: History, name: str, state: ServerState, *, serving: bool) -> list[Text]:
    is_used = serving or state.role is Role.PRIMARY
    mark = Text("+", style="green") if is_used else Text("x", style="bold red")
    lag = "" if state.lag_seconds is None else f"{state.lag_seconds:.2f} s"
    size = "" if state.lag_bytes is None else f"{state.lag_bytes:,}"
    style = _STYLES[state.role]
    line = sparkline(history.lags.get(name, ()), full=history.scale)
    role = state.role.value if state.up else "down"
    return [mark, Text(name, style=style), Text(role, style=style), Text(lag), Text(size), Text(line, style=style)]


def _events(history: History) -> list[Text]:
    if not history.lines:
        return [Text("  none yet", style="dim")]
    lines = []
    for line in reversed(history.lines):
        text = Text(f"  {_clock(line.at)}  ", style="dim")
        text.append(line.words, style="bold red" if line.is_bad else "green")
        lines.append(text)
    return lines


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))

"""One picture of the topology."""

import sys
import typing

from rich.console import Console

from modern_di_replicas import Role, ServerState, Snapshot
from modern_di_replicas.observability import Ejected, SnapshotPublished
from modern_di_replicas.watch.history import KEPT, History
from modern_di_replicas.watch.screen import render


def test_a_picture_shows_events_and_servers_that_are_down() -> None:
    """Problems are visible by their mark, not only by their colour."""
    history = History(lambda: 0.0)
    console = Console(width=80, record=True, file=typing.cast(typing.Any, sys.stderr))
    console.print(render(history, serving=frozenset(), now=0.0))
    history.on_event(Ejected(server="a", by="probe"))
    console.print(render(history, serving=frozenset(), now=0.0))
    text = console.export_text()
    assert "none yet" in text
    assert "a was ejected" in text


def test_a_row_is_one_line_also_with_a_whole_history() -> None:
    """In 80 columns, with the longest usual address and gigabytes of lag."""
    history = History(lambda: 0.0)
    state = ServerState(
        name="255.255.255.255:65535", up=True, role=Role.LEFT_BEHIND, lag_bytes=9999999999, lag_seconds=99.9
    )
    history.on_event(SnapshotPublished(snapshot=Snapshot(servers={state.name: state})))
    for _ in range(KEPT):
        history.sample()
    console = Console(width=80, record=True, file=typing.cast(typing.Any, sys.stderr))
    console.print(render(history, serving=frozenset({state.name}), now=0.0))
    (row,) = [line for line in console.export_text().splitlines() if state.name in line]
    assert row.count("█") == KEPT
    assert "left behind" in row

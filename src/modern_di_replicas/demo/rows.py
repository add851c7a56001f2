"""Rows of a table that grows."""

import collections.abc
import dataclasses

from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Column:
    title: str
    width: int | None = None
    """In characters; None for the rest of the line."""


def print_row(
    console: Console, columns: collections.abc.Sequence[Column], cells: collections.abc.Sequence[str], *, style: str
) -> None:
    """Print one row."""
    # One table for each row, with fixed widths: each row appears at once, also in a pipe.
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(width=column.width, overflow="fold")
    table.add_row(*(Text(cell) for cell in cells), style=style)
    console.print(table)


def print_header(console: Console, columns: collections.abc.Sequence[Column]) -> None:
    """Print the titles of the columns."""
    print_row(console, columns, [column.title for column in columns], style="dim")

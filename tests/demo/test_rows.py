"""Rows of a table that is printed as it grows."""

import io

from rich.console import Console

from modern_di_replicas.demo.rows import Column, print_header, print_row


COLUMNS = [Column(title="request", width=10), Column(title="reason")]


def test_rows_are_printed_one_by_one_below_their_titles() -> None:
    """Columns have fixed widths; a cell that is too long continues on the next line."""
    printed = io.StringIO()
    console = Console(file=printed, width=40)
    print_header(console, COLUMNS)
    print_row(console, COLUMNS, ["GET /users", "GET"], style="")
    print_row(console, COLUMNS, ["GET /users/12345", "[red] is no markup"], style="bold")
    assert [line.rstrip() for line in printed.getvalue().splitlines()] == [
        "request    reason",
        "GET /users GET",
        "GET        [red] is no markup",
        "/users/123",
        "45",
    ]

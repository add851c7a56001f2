import pytest

from modern_di_replicas.consistency.wal import last_record_end


PAGE = 8192
FILE = 16 * 1024 * 1024


@pytest.mark.parametrize(
    ("insert_lsn", "end"),
    [
        (3 * FILE + 5 * PAGE + 24, 3 * FILE + 5 * PAGE),  # after a page header
        (3 * FILE + 40, 3 * FILE),  # after the longer header of a file's first page
        (3 * FILE + 5 * PAGE + 40, 3 * FILE + 5 * PAGE + 40),  # a record that ends 16 bytes into the page
        (3 * FILE + 5 * PAGE, 3 * FILE + 5 * PAGE),
        (3 * FILE + 5 * PAGE + 32, 3 * FILE + 5 * PAGE + 32),
        (3 * FILE + 5 * PAGE + 8184, 3 * FILE + 5 * PAGE + 8184),
    ],
)
def test_the_last_record_ends_before_a_trailing_header(insert_lsn: int, end: int) -> None:
    """INVARIANT: a standby never replays a bare header: a wait for one would not end."""
    assert last_record_end(insert_lsn, insert_lsn % FILE) == end

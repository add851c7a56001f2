"""Arithmetic of positions in the write-ahead log (WAL)."""

import typing


PAGE: typing.Final = 8192
"""Bytes of a page of the log, as PostgreSQL is built everywhere (XLOG_BLCKSZ)."""
PAGE_HEADER: typing.Final = 24
FIRST_PAGE_HEADER: typing.Final = 40
"""Bytes of the header of a page, and of the first page of a file. PostgreSQL, `access/xlog_internal.h`."""

LAST_LSN: typing.Final = (1 << 64) - 1
"""The highest possible position."""


def last_record_end(insert_lsn: int, offset: int) -> int:
    """Return the end of the last record, from the start of the next one.

    The two differ at the end of a page: the next record begins after a page header, which a standby does not replay by
    itself. A read that waits for that position would wait for the next write.

    Args:
        insert_lsn: the result of `pg_current_wal_insert_lsn()`.
        offset: its offset in the file, as `pg_walfile_name_offset()` returns it.

    """
    in_page = offset % PAGE
    return insert_lsn - in_page if in_page == PAGE_HEADER or offset == FIRST_PAGE_HEADER else insert_lsn

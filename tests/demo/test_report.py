"""A response's report about the server that answered."""

import dataclasses

import pytest

from modern_di_replicas.demo.report import Report


@pytest.mark.parametrize("flag", [True, False])
def test_a_report_is_read_as_it_was_written(flag: bool) -> None:
    """Every fact is preserved in the headers of a response."""
    report = Report(
        port=5432,
        in_recovery=flag,
        server="db-2",
        intent="read",
        group="analytics",
        marker="@read_intent",
        level="STRONG",
        has_token=not flag,
        reason="GET, escalated: INSERT",
    )
    headers = report.as_headers()
    assert Report.from_headers(headers) == report
    assert len(headers) == len(dataclasses.fields(report))

"""Poolers between the application and a server."""

import typing

import pytest

from modern_di_replicas.doctor.checks.poolers import check_pooler
from tests.doctor.made_up import examination, primary, replica


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({"pooling": "none"}, []),
        ({"pooling": "transaction"}, [("pooler", "problem")]),
        ({"pooling": "transaction", "is_declared_pooled": True}, []),
        ({"pooling": "session"}, [("pooler", "advice")]),
        ({"prepared_statements": "26000"}, [("prepared-statements", "problem")]),
    ],
)
def test_a_pooler_that_is_not_declared_is_found(facts: dict[str, typing.Any], found: list[tuple[str, str]]) -> None:
    """In session mode it only hides the server from the monitor."""
    findings = check_pooler(examination(primary(), replica(**facts)))
    assert [(finding.kind, finding.severity) for finding in findings] == found

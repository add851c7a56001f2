import pytest

from modern_di_replicas.drivers.commit import is_commit


@pytest.mark.parametrize(
    "text",
    [
        *("COMMIT", "commit;", " END ", "COMMIT WORK", "end transaction ;\n"),
        *("COMMIT AND CHAIN", "commit work and no chain", "/* pay */ COMMIT; -- done", "--\nCOMMIT/**/"),
    ],
)
def test_each_way_to_write_a_commit_is_one(text: str) -> None:
    """PostgreSQL may answer each of them with ROLLBACK."""
    assert is_commit(text)


@pytest.mark.parametrize("text", ["COMMIT PREPARED 'a'", "SELECT 1; COMMIT", "-- COMMIT", "ENDS", "ROLLBACK"])
def test_any_other_statement_is_not_a_commit(text: str) -> None:
    """The answer to it is not that of a commit."""
    assert not is_commit(text)

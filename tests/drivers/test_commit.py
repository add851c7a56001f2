import pytest

from modern_di_replicas.drivers.commit import COMMIT


@pytest.mark.parametrize("text", ["COMMIT", "commit;", " END ", "COMMIT WORK", "end transaction ;\n"])
def test_each_way_to_write_a_commit_is_one(text: str) -> None:
    """PostgreSQL may answer each of them with ROLLBACK."""
    assert COMMIT.fullmatch(text)


@pytest.mark.parametrize("text", ["COMMIT PREPARED 'a'", "SELECT 1; COMMIT", "COMMIT AND CHAIN", "ENDS", "ROLLBACK"])
def test_anything_else_is_none(text: str) -> None:
    """Its answer says something else."""
    assert not COMMIT.fullmatch(text)

"""The doctor's questions."""

import pytest

from modern_di_replicas.doctor import questions
from modern_di_replicas.testing import LocalCluster


QUESTIONS = {name: text for name, text in vars(questions).items() if isinstance(text, str) and "SELECT" in text}


@pytest.mark.parametrize("name", sorted(QUESTIONS))
def test_a_primary_and_a_standby_answer_every_question(replicated_cluster: LocalCluster, name: str) -> None:
    """With one row; a server that refuses a question or returns no row is examined without it."""
    for server in replicated_cluster.servers[:2]:
        assert server.execute(f"SELECT count(*) FROM ({QUESTIONS[name]}) AS answer") == "1"  # noqa: S608  # of ours

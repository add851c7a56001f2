"""The requests that flow while servers break."""

import pytest

from modern_di_replicas.demo import traffic
from modern_di_replicas.demo.traffic import Answer, Traffic


async def test_an_application_that_does_not_answer_is_a_failure_that_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing listens there: each read fails, and the wait for better times is bounded."""
    shown: list[Answer] = []
    traffic_to_nowhere = Traffic(url="http://127.0.0.1:9", user_id=1, show=shown.append)
    async with traffic_to_nowhere as running:
        assert await running.until(lambda: all(answer.failed for answer in running.recent))
        monkeypatch.setattr(traffic, "TIMEOUT", 0.05)
        assert not await running.until(lambda: False)
    assert {answer.reason for answer in shown} == {"ConnectError"}
    assert running.written_on is None

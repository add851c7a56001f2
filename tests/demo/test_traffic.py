"""The requests that run while servers break."""

import fastapi
import pytest

from modern_di_replicas.demo import traffic
from modern_di_replicas.demo.server import serving
from modern_di_replicas.demo.traffic import Answer, Traffic
from tests.waiting import until


async def test_an_application_that_does_not_answer_is_a_failure_that_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing listens there: each read fails, and the retries are limited."""
    shown: list[Answer] = []
    traffic_to_nowhere = Traffic(url="http://127.0.0.1:9", user_id=1, show=shown.append)
    async with traffic_to_nowhere as running:
        assert await running.until(lambda: all(answer.failed for answer in running.recent))
        monkeypatch.setattr(traffic, "TIMEOUT", 0.05)
        assert not await running.until(lambda: False)
    assert {answer.reason for answer in shown} == {"ConnectError"}
    assert running.written_on is None


async def test_each_write_changes_a_row() -> None:
    """INVARIANT: an unchanged user would not be written, and a replica with paused replay would not lag."""
    app = fastapi.FastAPI()
    names: list[str] = []

    @app.put("/users/7")
    async def put(user: dict[str, str]) -> None:
        names.append(user["name"])
        raise fastapi.HTTPException(503)

    async with serving(app, port=0) as url, Traffic(url=url, user_id=7, user={"name": "Ada"}, pause=0.001):
        await until(lambda: len(names) >= 3)
    assert names[:3] == ["Ada 1", "Ada 2", "Ada 3"]

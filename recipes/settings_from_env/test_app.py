import collections.abc
import json

import fastapi
import httpx
import pytest

from modern_di_replicas import ConfigurationError, ReplicationSettings
from recipes.settings_from_env.app import main, main_of_model


async def answer(app: fastapi.FastAPI) -> object:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://shop") as client,
    ):
        return (await client.get("/standby")).json()


@pytest.fixture
def urls(database: ReplicationSettings) -> list[str]:
    return [database.declared_primary.url, *(replica.url for replica in database.servers)]


@pytest.mark.parametrize(
    ("create", "joined"),
    [pytest.param(main, ",".join, id="the library"), pytest.param(main_of_model, json.dumps, id="pydantic-settings")],
)
async def test_the_replicas_of_the_environment_serve_reads(
    urls: list[str],
    create: collections.abc.Callable[[], fastapi.FastAPI],
    joined: collections.abc.Callable[[list[str]], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same variables, read in both ways; only lists differ."""
    monkeypatch.setenv("DB_PRIMARY", urls[0])
    monkeypatch.setenv("DB_REPLICAS", joined(urls[1:]))
    monkeypatch.setenv("DB_MAX_LAG", "30")
    assert await answer(create()) is True


async def test_a_variable_that_is_wrong_is_named(urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any connection is opened."""
    monkeypatch.setenv("DB_PRIMARY", urls[0])
    monkeypatch.setenv("DB_MAX_LAG", "a while")
    with pytest.raises(ConfigurationError, match="DB_MAX_LAG = 'a while' is not usable: use a number of seconds"):
        main()

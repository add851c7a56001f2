import contextlib
import pathlib

import httpx
import pytest
from sqlalchemy import URL, make_url

from modern_di_replicas.testing import LocalCluster
from recipes.pgbouncer.app import create_app, main, settings_for
from tests.pgbouncer import needs_pgbouncer, pooler


def without_password(url: str) -> str:
    given = make_url(url)
    named = URL.create("postgresql+psycopg", given.username, None, given.host, given.port, given.database)
    return named.render_as_string()


@needs_pgbouncer
async def test_requests_are_served_through_the_poolers(
    disposable_cluster: LocalCluster, tmp_path: pathlib.Path
) -> None:
    """A client reads its own write from a replica, although all clients share three connections."""
    disposable_cluster.primary.execute("CREATE TABLE visits (n serial PRIMARY KEY)")
    disposable_cluster.catch_up()
    file = tmp_path / "password"
    file.write_text("whatever pgbouncer asks for\n")
    async with contextlib.AsyncExitStack() as stack:
        urls = [
            without_password(await stack.enter_async_context(pooler(server))) for server in disposable_cluster.servers
        ]
        app = create_app(settings_for(urls[0], urls[1:], file))
        await stack.enter_async_context(app.router.lifespan_context(app))
        client = await stack.enter_async_context(
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.example")
        )
        for number in range(1, 6):
            assert (await client.post("/visits")).json() == number
            assert (await client.get("/visits")).json() == number


def test_it_is_configured_by_its_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """With the variables in its docstring."""
    monkeypatch.setenv("PRIMARY_URL", "postgresql+psycopg://app@pooler-1:6432/shop")
    monkeypatch.setenv("REPLICA_URLS", "postgresql+psycopg://app@pooler-2:6432/shop")
    monkeypatch.setenv("PASSWORD_FILE", str(tmp_path / "password"))

    assert main().url_path_for("count") == "/visits"

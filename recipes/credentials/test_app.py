import asyncio
import pathlib

import httpx
import pytest
from sqlalchemy import URL, make_url

from modern_di_replicas.testing import LocalCluster
from recipes.credentials.app import Password, main


def without_password(url: str) -> str:
    given = make_url(url)
    return URL.create(given.drivername, given.username, None, given.host, given.port, given.database).render_as_string()


async def test_one_password_is_fetched_for_all_until_it_ends() -> None:
    """A pool that opens many connections fetches once; after nine tenths of its lifetime, a new password is fetched."""
    fetched: list[str] = []

    async def fetch() -> str:
        await asyncio.sleep(0)
        fetched.append(f"password {len(fetched)}")
        return fetched[-1]

    lasting, ended = Password(fetch, 900), Password(fetch, 0)
    assert set(await asyncio.gather(*(lasting() for _ in range(5)))) == {"password 0"}
    assert [await ended(), await ended()] == ["password 1", "password 2"]


async def test_every_connection_uses_the_password_of_the_moment(
    replicated_cluster: LocalCluster, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The URLs contain none; the file contains the valid one."""
    file = tmp_path / "password"
    file.write_text(f"{make_url(replicated_cluster.primary.url).password}\n")
    monkeypatch.setenv("PASSWORD_FILE", str(file))
    primary, *replicas = (without_password(server.url) for server in replicated_cluster.servers)
    monkeypatch.setenv("PRIMARY_URL", primary)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replicas))
    app = main()
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://shop") as client,
    ):
        assert (await client.get("/standby")).json() is True

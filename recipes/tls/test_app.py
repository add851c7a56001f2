import contextlib
import pathlib

import httpx
import pytest
from sqlalchemy import make_url

from modern_di_replicas.testing import LocalCluster
from recipes.tls.app import create_app, main, settings_for
from tests.certificates import needs_openssl, of_pooler
from tests.pgbouncer import needs_pgbouncer, pooler


pytestmark = [needs_pgbouncer, needs_openssl]


@pytest.mark.parametrize(("host", "serves"), [("localhost", True), ("127.0.0.1", False)])
async def test_only_a_server_with_a_certificate_for_its_name_is_used(
    replicated_cluster: LocalCluster, certificates: pathlib.Path, host: str, serves: bool
) -> None:
    """Poolers with certificates stand before the servers: any PostgreSQL will do."""
    async with contextlib.AsyncExitStack() as stack:
        urls = [
            make_url(await stack.enter_async_context(pooler(server, **of_pooler(certificates))))
            .set(drivername="postgresql+asyncpg", host=host)
            .render_as_string(hide_password=False)
            for server in replicated_cluster.servers
        ]
        app = create_app(settings_for(urls[0], urls[1:], certificates, pooled=True))
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://shop"))
        response = await client.get("/standby")
        assert (response.status_code, response.text) == ((200, "true") if serves else (500, "Internal Server Error"))


def test_files_that_are_missing_are_noticed_at_once(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is connected."""
    monkeypatch.setenv("PRIMARY_URL", "postgresql+asyncpg://app@db-1/shop")
    monkeypatch.setenv("REPLICA_URLS", "postgresql+asyncpg://app@db-2/shop")
    monkeypatch.setenv("CERTIFICATES", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        main()

import contextlib
import pathlib

import httpx
import pytest
from sqlalchemy import make_url

from modern_di_replicas import ConfigurationError
from modern_di_replicas.testing import LocalCluster
from recipes.tls.app import create_app, main, settings_for
from tests.certificates import needs_openssl, of_pooler
from tests.pgbouncer import needs_pgbouncer, pooler


pytestmark = [needs_pgbouncer, needs_openssl]


@pytest.mark.parametrize(
    ("host", "start"),
    [
        ("localhost", contextlib.nullcontext()),
        ("127.0.0.1", pytest.raises(ConfigurationError, match="certificate verify failed")),
    ],
)
async def test_only_a_server_with_a_certificate_for_its_name_is_used(
    replicated_cluster: LocalCluster,
    certificates: pathlib.Path,
    host: str,
    start: contextlib.AbstractContextManager[object],
) -> None:
    """Poolers with certificates are in front of the servers, so any PostgreSQL can be used."""
    async with contextlib.AsyncExitStack() as stack:
        urls = [
            make_url(await stack.enter_async_context(pooler(server, **of_pooler(certificates))))
            .set(drivername="postgresql+asyncpg", host=host)
            .render_as_string(hide_password=False)
            for server in replicated_cluster.servers
        ]
        app = create_app(settings_for(urls[0], urls[1:], certificates, pooled=True))
        with start:
            await stack.enter_async_context(app.router.lifespan_context(app))
            client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop")
            response = await (await stack.enter_async_context(client)).get("/standby")
            assert response.json() is True


def test_files_that_are_missing_are_noticed_at_once(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any connection is opened."""
    monkeypatch.setenv("PRIMARY_URL", "postgresql+asyncpg://app@db-1/shop")
    monkeypatch.setenv("REPLICA_URLS", "postgresql+asyncpg://app@db-2/shop")
    monkeypatch.setenv("CERTIFICATES", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        main()

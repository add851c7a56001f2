"""Certificates: a pooler in front of each server asks for them, so that any PostgreSQL will do."""

import contextlib
import pathlib
import ssl
import typing

from sqlalchemy import make_url, text

from modern_di_replicas import Monitor, RoutedSession
from modern_di_replicas.testing import LocalCluster
from tests.certificates import needs_openssl, of_pooler
from tests.driver import DRIVER
from tests.pgbouncer import needs_pgbouncer, pooler
from tests.session.conftest import serving


pytestmark = [needs_pgbouncer, needs_openssl]


def verifying(folder: pathlib.Path, *, with_certificate: bool = True) -> dict[str, typing.Any]:
    """Return `connect_args` that verify the server's certificate and name, and show the client's."""
    if DRIVER == "psycopg":
        client = {"sslcert": str(folder / "client.pem"), "sslkey": str(folder / "client.key")}
        return {"sslmode": "verify-full", "sslrootcert": str(folder / "ca.pem")} | (client if with_certificate else {})
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if with_certificate:
        context.load_cert_chain(folder / "client.pem", folder / "client.key")
    return {"ssl": context}


async def test_certificates_are_verified_by_the_pools_and_the_monitor(
    replicated_cluster: LocalCluster, certificates: pathlib.Path
) -> None:
    """An own CA, `verify-full` and a certificate of the client's, for every server."""
    async with contextlib.AsyncExitStack() as stack:
        urls = []
        for server in replicated_cluster.servers:
            url = make_url(await stack.enter_async_context(pooler(server, **of_pooler(certificates)))).set(
                host="localhost"
            )
            urls.append(url.render_as_string(hide_password=False))
        settings = {"primary": urls[0], "replicas": urls[1:], "pooled": True}
        connect_args = verifying(certificates)
        serve = serving(replicated_cluster, **settings, connect_args=connect_args)
        async with serve as servers, Monitor(servers.replica):
            assert servers.replica.topology.leader is not None
            for session in (servers.session(), RoutedSession(servers.primary)):
                async with session:
                    assert await session.scalar(text("SELECT 1")) == 1

        refused = verifying(certificates, with_certificate=False)
        async with serving(replicated_cluster, **settings, connect_args=refused) as servers, Monitor(servers.replica):
            assert servers.replica.topology.leader is None

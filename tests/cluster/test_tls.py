"""Certificates: a pooler in front of each server asks for them, so that any PostgreSQL will do."""

import contextlib
import pathlib
import shutil
import ssl
import subprocess
import typing

import pytest
from sqlalchemy import make_url, text

from modern_di_replicas import Monitor, RoutedSession
from modern_di_replicas.testing import LocalCluster
from tests.driver import DRIVER
from tests.pgbouncer import needs_pgbouncer, pooler
from tests.session.conftest import serving


pytestmark = [needs_pgbouncer, pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")]


def openssl(folder: pathlib.Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)  # noqa: S603, S607  # ours


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Give a folder with a CA of its own, and what it has signed: `server.pem` for localhost, and `client.pem`."""
    folder = tmp_path_factory.mktemp("certificates")
    key = ("-newkey", "rsa:2048", "-nodes", "-keyout")
    openssl(folder, "req", "-x509", *key, "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=an own CA")
    for name, subject in (("server", "localhost"), ("client", "postgres")):
        extension = f"subjectAltName=DNS:{subject}"
        openssl(folder, "req", *key, f"{name}.key", "-out", "csr", "-subj", f"/CN={subject}", "-addext", extension)
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-copy_extensions", "copy")
        openssl(folder, "x509", "-req", "-in", "csr", *signing, "-out", f"{name}.pem", "-days", "2")
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(0o755)  # the pooler runs as another user
    (folder / "server.key").chmod(0o644)
    (folder / "client.key").chmod(0o600)
    return folder


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
    tls = {
        "client_tls_sslmode": "verify-ca",
        "client_tls_ca_file": str(certificates / "ca.pem"),
        "client_tls_cert_file": str(certificates / "server.pem"),
        "client_tls_key_file": str(certificates / "server.key"),
    }
    async with contextlib.AsyncExitStack() as stack:
        urls = []
        for server in replicated_cluster.servers:
            url = make_url(await stack.enter_async_context(pooler(server, **tls))).set(host="localhost")
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

"""Certificates of a CA of the tests' own, for what verifies them."""

import pathlib
import shutil
import subprocess
import typing

import pytest


needs_openssl: typing.Final = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def openssl(folder: pathlib.Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)  # noqa: S603, S607  # ours


@pytest.fixture(scope="session")
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
        parent.chmod(0o755)  # a pooler runs as another user
    (folder / "server.key").chmod(0o644)
    (folder / "client.key").chmod(0o600)
    return folder


def of_pooler(folder: pathlib.Path) -> dict[str, str]:
    """Return settings of pgbouncer: it shows its certificate, and asks for the client's."""
    return {
        "client_tls_sslmode": "verify-ca",
        "client_tls_ca_file": str(folder / "ca.pem"),
        "client_tls_cert_file": str(folder / "server.pem"),
        "client_tls_key_file": str(folder / "server.key"),
    }

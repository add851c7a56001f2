"""Certificates of CAs of our own, for tests."""

import collections.abc
import pathlib
import shutil
import subprocess
import tempfile
import typing

import pytest


needs_openssl: typing.Final = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

_KEY: typing.Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout")
# Python 3.13 verifies strictly, as RFC 5280 says.
_OF_CA: typing.Final = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
_SIGNED: typing.Final = "subjectAltName=DNS:{}\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"


def openssl(folder: pathlib.Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)  # noqa: S603, S607  # ours


def make_ca(folder: pathlib.Path, ca: str) -> None:
    """Make the files of a CA, whose certificate has its name."""
    openssl(
        folder, "req", "-x509", *_KEY, f"{ca}.key", "-out", f"{ca}.pem", "-days", "2", *_OF_CA, "-subj", f"/CN={ca}"
    )


def sign(folder: pathlib.Path, name: str, subject: str, *, ca: str = "ca") -> None:
    """Make or replace `name.pem` and `name.key` for a host or a user, signed by a CA."""
    (folder / "extensions").write_text(_SIGNED.format(subject))
    openssl(folder, "req", *_KEY, f"{name}.key", "-out", "csr", "-subj", f"/CN={subject}")
    signing = ("-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-extfile", "extensions")
    openssl(folder, "x509", "-req", "-in", "csr", *signing, "-out", f"{name}.pem", "-days", "2")
    (folder / f"{name}.key").chmod(0o644)  # the pooler's user reads it


@pytest.fixture(scope="session")
def certificates() -> collections.abc.Iterator[pathlib.Path]:
    """Give a folder with a CA of its own, and what it has signed: `server.pem` for localhost, and `client.pem`."""
    # pytest's own folders do not do: a pooler runs as another user, and each run of pytest closes them to others again.
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        make_ca(folder, "ca")
        sign(folder, "server", "localhost")
        sign(folder, "client", "postgres")
        (folder / "client.key").chmod(0o600)
        yield folder


def of_pooler(folder: pathlib.Path, name: str = "server") -> dict[str, str]:
    """Return settings of pgbouncer: it shows its certificate, and asks for the client's."""
    return {
        "client_tls_sslmode": "verify-ca",
        "client_tls_ca_file": str(folder / "ca.pem"),
        "client_tls_cert_file": str(folder / f"{name}.pem"),
        "client_tls_key_file": str(folder / f"{name}.key"),
    }

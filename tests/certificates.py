"""Certificates of test CAs."""

import collections.abc
import pathlib
import shutil
import subprocess
import tempfile
import typing

import pytest


needs_openssl: typing.Final = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

_KEY: typing.Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout")
# Python 3.13 verifies strictly according to RFC 5280.
_OF_CA: typing.Final = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
_SIGNED: typing.Final = "subjectAltName=DNS:{}\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"


def openssl(folder: pathlib.Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)  # noqa: S603, S607  # ours


def make_ca(folder: pathlib.Path, ca: str) -> None:
    """Create the files of a CA with this name."""
    openssl(
        folder, "req", "-x509", *_KEY, f"{ca}.key", "-out", f"{ca}.pem", "-days", "2", *_OF_CA, "-subj", f"/CN={ca}"
    )


def sign(folder: pathlib.Path, name: str, subject: str, *, ca: str = "ca") -> None:
    """Create or replace `name.pem` and `name.key` for a host or a user, signed by a CA."""
    (folder / "extensions").write_text(_SIGNED.format(subject))
    openssl(folder, "req", *_KEY, f"{name}.key", "-out", "csr", "-subj", f"/CN={subject}")
    signing = ("-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-extfile", "extensions")
    openssl(folder, "x509", "-req", "-in", "csr", *signing, "-out", f"{name}.pem", "-days", "2")
    (folder / f"{name}.key").chmod(0o644)  # the pooler's account reads it


@pytest.fixture(scope="session")
def certificates() -> collections.abc.Iterator[pathlib.Path]:
    """Yield a folder with a CA, a certificate `server.pem` for localhost, and a certificate `client.pem`."""
    # pytest's tmp_path is not usable: the pooler runs under another account, to which pytest closes its folders.
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        make_ca(folder, "ca")
        sign(folder, "server", "localhost")
        sign(folder, "client", "postgres")
        (folder / "client.key").chmod(0o600)
        yield folder


def of_pooler(folder: pathlib.Path, name: str = "server") -> dict[str, str]:
    """Return pgbouncer settings that use a server certificate and require a client certificate."""
    return {
        "client_tls_sslmode": "verify-ca",
        "client_tls_ca_file": str(folder / "ca.pem"),
        "client_tls_cert_file": str(folder / f"{name}.pem"),
        "client_tls_key_file": str(folder / f"{name}.key"),
    }

"""A real pgbouncer in transaction mode in front of a server; tests are skipped if it is not installed."""

import asyncio
import collections.abc
import contextlib
import dataclasses
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import typing

import pytest
from sqlalchemy import make_url

from modern_di_replicas import Primary, Replica, ReplicationSettings
from modern_di_replicas.testing import LocalServer
from modern_di_replicas.testing.cluster import DRIVER_VARIABLE
from modern_di_replicas.testing.server import free_port
from modern_di_replicas.testing.waiting import wait_until


PROGRAM: typing.Final = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

needs_pgbouncer: typing.Final = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")

SETTINGS: typing.Final = {
    "listen_addr": "127.0.0.1",
    "auth_type": "any",
    "pool_mode": "transaction",
    "default_pool_size": "3",
    "max_client_conn": "1000",
    "server_login_retry": "0.1",
    "unix_socket_dir": "",
}


POOLER_VARIABLE: typing.Final = "MODERN_DI_REPLICAS_TEST_POOLER"
"""Set by `pytest --pooler`: `serving()` and the applications of `tests/asgi` then connect through poolers."""

Server = typing.TypeVar("Server", Primary, Replica)

_shared: typing.Final[dict[str, "Pooler"]] = {}


def is_behind_poolers() -> bool:
    return POOLER_VARIABLE in os.environ


def not_behind_a_pooler(reason: str, *, driver: str | None = None) -> pytest.MarkDecorator:
    """Mark a test that fails behind a transaction pooler; `docs/drivers.md` lists the differences.

    Args:
        reason: the difference.
        driver: the driver with which it fails; default: each.

    """
    # `tests.driver` must not be imported before pytest has parsed its options.
    is_different = is_behind_poolers() and driver in (None, os.environ.get(DRIVER_VARIABLE))
    return pytest.mark.skipif(is_different, reason=f"not behind a pooler: {reason}")


AUTOCOMMIT: typing.Final = "asyncpg cannot autocommit there"
"""The difference with asyncpg."""


def through_pooler(url: str) -> str:
    """Return the URL of a server through a pooler that runs until the end of the tests."""
    server = str(make_url(url).set(database=None, query={}))
    if server not in _shared:
        # Some tests need several transactions at once. And a pooler accepts clients while its server is stopped.
        _shared[server] = Pooler(url, "*", default_pool_size="20", query_wait_timeout="2")
    return _shared[server].url(url)


def behind_poolers(settings: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """Return arguments of settings, with a pooler in front of each server if the suite runs that way."""
    if not is_behind_poolers() or "pooled" in settings:
        return settings
    declared = ReplicationSettings(**settings)
    primary, replicas = _through(declared.declared_primary), [_through(server) for server in declared.servers]
    return {**settings, "primary": primary, "replicas": replicas, "pooled": True}


def _through(server: Server) -> Server:
    """Return a declared server behind a pooler, under its original name."""
    url = server.url
    return dataclasses.replace(server, url=through_pooler(url), name=server.label)


def end_poolers() -> None:
    while _shared:
        _shared.popitem()[1].end()


class Pooler:
    """A running pgbouncer.

    Args:
        url: that of the server.
        name: the pooler's name of the database; `*` for the same names.
        settings: additional settings of pgbouncer.

    """

    def __init__(self, url: str, name: str, **settings: str) -> None:
        assert PROGRAM is not None
        real = make_url(url)
        self._port = free_port()
        self._folder = tempfile.TemporaryDirectory()
        database = "" if name == "*" else f" dbname={real.database}"
        target = f"host={real.host} port={real.port}{database} user={real.username} password={real.password}"
        options = {**SETTINGS, "listen_port": str(self._port), **settings}
        file = pathlib.Path(self._folder.name) / "pgbouncer.ini"
        lines = ["[databases]", f"{name} = {target}", "[pgbouncer]", *(f"{k} = {v}" for k, v in options.items())]
        file.write_text("\n".join(lines))
        if os.geteuid() == 0:  # pgbouncer refuses to run as root
            file.parent.chmod(0o755)  # so that it can read the file
        self._command = [PROGRAM, str(file)]
        self._log = file.with_name("log")
        self._start()

    def _start(self) -> None:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(  # noqa: S603  # a program of Debian's
                self._command, user="nobody" if os.geteuid() == 0 else None, stdout=log, stderr=log
            )
        assert wait_until(lambda: self._process.poll() is not None or self._accepts(), timeout=30)
        assert self._process.poll() is None, self._log.read_text()

    def restart(self) -> None:
        """Close every connection, and reload all files."""
        self._process.kill()
        self._process.wait()
        self._start()

    def url(self, url: str, database: str | None = None) -> str:
        """Return the URL of its server with the address of the pooler."""
        real = make_url(url)
        there = real.set(host="127.0.0.1", port=self._port, database=database or real.database)
        return there.render_as_string(hide_password=False)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port)).close()
        except OSError:
            return False
        return True


@contextlib.asynccontextmanager
async def pooler(
    server: LocalServer, database: str | None = None, **settings: str
) -> collections.abc.AsyncIterator[str]:
    """Yield the URL of a server through a pooler, where its database may have another name."""
    name = database or str(make_url(server.url).database)
    running = await asyncio.to_thread(Pooler, server.url, name, **settings)
    try:
        yield running.url(server.url, database)
    finally:
        await asyncio.to_thread(running.end)


async def accepts(port: int) -> bool:
    """Return whether something listens on the port."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True

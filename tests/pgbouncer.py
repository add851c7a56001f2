"""A real pgbouncer in transaction mode in front of a server; tests are skipped where it is not installed."""

import asyncio
import collections.abc
import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import typing

import pytest
from sqlalchemy import make_url

from modern_di_replicas.testing import LocalServer
from modern_di_replicas.testing.server import free_port
from tests.waiting import until


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


@contextlib.asynccontextmanager
async def pooler(
    server: LocalServer, database: str | None = None, **settings: str
) -> collections.abc.AsyncIterator[str]:
    """Give the URL that leads to a server through a pooler, where its database may have another name."""
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        file = pathlib.Path(folder) / "pgbouncer.ini"
        real = make_url(server.url)
        target = (
            f"host={real.host} port={real.port} dbname={real.database} user={real.username} password={real.password}"
        )
        options = {**SETTINGS, "listen_port": str(port), **settings}
        lines = [
            "[databases]",
            f"{database or real.database} = {target}",
            "[pgbouncer]",
            *(f"{k} = {v}" for k, v in options.items()),
        ]
        file.write_text("\n".join(lines))
        is_root = os.geteuid() == 0
        if is_root:  # which pgbouncer refuses to run as
            os.chmod(folder, 0o755)  # noqa: S103, PTH101  # so that it can read the file
        process = subprocess.Popen(  # noqa: ASYNC220, S603  # it only starts; a program of Debian's
            [PROGRAM, str(file)],
            user="nobody" if is_root else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            await until(lambda: accepts(port))
            yield real.set(port=port, database=database or real.database).render_as_string(hide_password=False)
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)


async def accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True

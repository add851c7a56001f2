"""A pgbouncer in transaction mode in front of a server, for the contenders behind a pooler."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
import typing

from sqlalchemy import make_url


PROGRAM: typing.Final = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
"""None where it is not installed: these contenders are left out then."""

START_SECONDS: typing.Final = 10.0

CONFIGURATION: typing.Final = """
[databases]
* = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 20
"""


class Pooler:
    """A running pgbouncer.

    Args:
        url: that of the server.

    """

    def __init__(self, url: str) -> None:
        assert PROGRAM is not None
        real = make_url(url)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = real.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        self._folder = tempfile.TemporaryDirectory()
        file = pathlib.Path(self._folder.name) / "pgbouncer.ini"
        file.write_text(
            CONFIGURATION.format(
                host=real.host, port=real.port, user=real.username, password=real.password, own_port=port
            )
        )
        is_root = os.geteuid() == 0
        if is_root:  # pgbouncer refuses to run as root
            file.parent.chmod(0o755)
        self._process = subprocess.Popen(  # noqa: S603  # a program of the system's
            [PROGRAM, str(file)],
            user="nobody" if is_root else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                return
            time.sleep(0.01)
        self.end()
        msg = "pgbouncer did not start"
        raise TimeoutError(msg)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

"""A real Redis for queues; tests are skipped if it is not installed."""

import asyncio
import collections.abc
import contextlib
import shutil
import subprocess
import tempfile
import typing

import pytest

from modern_di_replicas.testing.server import free_port
from tests.pgbouncer import accepts
from tests.waiting import until


PROGRAM: typing.Final = shutil.which("redis-server")


@contextlib.contextmanager
def redis_server() -> collections.abc.Iterator[str]:
    """Yield the URL of a Redis without persistence."""
    if PROGRAM is None:
        pytest.skip("redis-server is not installed")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(  # noqa: S603  # a program of Debian's
            [PROGRAM, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            asyncio.run(until(lambda: accepts(port)))
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()

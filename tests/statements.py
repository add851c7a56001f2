"""Waits until a server runs a statement, so that a test can interrupt it."""

import asyncio

from modern_di_replicas.testing import LocalServer
from tests.waiting import until


async def until_running(server: LocalServer, part: str) -> None:
    """Wait until a server runs a statement that contains this text."""
    question = (
        "SELECT count(*) > 0 FROM pg_stat_activity "  # noqa: S608  # of ours
        f"WHERE state = 'active' AND pid <> pg_backend_pid() AND strpos(query, '{part}') > 0"
    )

    async def is_running() -> bool:  # in a thread: this loop must keep running
        return await asyncio.to_thread(server.execute, question) == "t"

    await until(is_running)

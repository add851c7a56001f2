"""Monitor the servers as an application does, and show their state."""

import asyncio
import collections.abc
import contextlib
import dataclasses
import logging
import time
import typing

from rich.console import Console
from rich.live import Live
from rich.text import Text

from modern_di_replicas.cluster.engines.create import create_primary_engine, create_replica_engine
from modern_di_replicas.cluster.engines.replica import ReplicaEngine
from modern_di_replicas.cluster.monitoring.monitor import Monitor
from modern_di_replicas.doctor.targets import settings_of
from modern_di_replicas.errors import ReplicasError
from modern_di_replicas.settings import ReplicationSettings
from modern_di_replicas.watch.history import History
from modern_di_replicas.watch.screen import render


FAILED: typing.Final = 1
REFRESH: typing.Final = 0.5
"""Seconds between two refreshes."""


def run(targets: collections.abc.Sequence[str], *, seconds: float | None = None) -> int:
    """Show the topology until Ctrl-C.

    Args:
        targets: URLs, or one `module:name`; see `settings_of`.
        seconds: how long; 0 to print once, None for no limit.

    Returns:
        The exit status: 0, or 1 when the servers cannot be monitored.

    """
    console = Console()
    try:
        settings = settings_of(targets)
        with contextlib.suppress(KeyboardInterrupt), _without_log():
            asyncio.run(_watch(console, settings, seconds))
    except (ReplicasError, OSError) as error:
        Console(stderr=True).print(Text(str(error), style="bold red"), soft_wrap=True)
        return FAILED
    return 0


@contextlib.contextmanager
def _without_log() -> collections.abc.Iterator[None]:
    """Hide the warnings of the library, which are shown as events."""
    logger, handler = logging.getLogger("modern_di_replicas"), logging.NullHandler()
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = before
        logger.removeHandler(handler)


async def _watch(console: Console, settings: ReplicationSettings, seconds: float | None) -> None:
    history = History(time.time)
    # Only the hooks of the application are left out: they would count the events of this command.
    watched = dataclasses.replace(settings, hooks=[history])
    primary = create_primary_engine(watched)
    replicas = create_replica_engine(watched, primary)
    try:
        async with Monitor(replicas):
            await _show(console, history, replicas, seconds)
    finally:
        await replicas.dispose()
        await primary.dispose()


async def _show(console: Console, history: History, replicas: ReplicaEngine, seconds: float | None) -> None:
    def picture() -> typing.Any:  # noqa: ANN401  # rich's own kinds
        history.sample()
        groups = {group for server in replicas.topology.servers for group in server.groups}
        serving = frozenset(server.name for group in groups for server in replicas.topology.serving(group))
        return render(history, serving=serving, now=time.time())

    if seconds == 0:
        console.print(picture())
        return
    deadline = None if seconds is None else time.monotonic() + seconds
    with Live(picture(), console=console, auto_refresh=False) as live:
        while deadline is None or time.monotonic() < deadline:
            await asyncio.sleep(REFRESH)
            live.update(picture(), refresh=True)

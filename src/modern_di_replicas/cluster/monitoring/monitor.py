"""Monitor the servers: one task and one connection for each, and a snapshot that is replaced as a whole."""

import asyncio
import functools
import logging
import random
import time
import types
import typing

from modern_di_replicas.cluster.engines.primary import PrimaryRole
from modern_di_replicas.cluster.engines.replica import ReplicaRole
from modern_di_replicas.cluster.monitoring.conclusions import JITTER
from modern_di_replicas.cluster.monitoring.immediate_probes import ImmediateProbes
from modern_di_replicas.cluster.names import is_name
from modern_di_replicas.cluster.pools.sockets import leave_to_parent
from modern_di_replicas.cluster.server import Server
from modern_di_replicas.routing.snapshot import Observation, Snapshot


logger = logging.getLogger("modern_di_replicas")

FURTHER_PROBES: typing.Final = 2
"""The number of further connections to a name at the start, to find out whether it always leads to the same server."""

LONGEST_PAUSE: typing.Final = 2.0
"""The longest pause in seconds between two probes of a server that is down."""

LAG_TIMEOUT: typing.Final = 0.25
"""Timeout in seconds at the start for the replicas to reach the primary's position of that moment."""


class Monitor(ImmediateProbes):
    """Monitors the servers of one application while it runs: `async with Monitor(replica_engine): ...`.

    `setup_replicas` and `ReplicasPlugin` start it with the application. Without it the library relies on the failures
    of sessions; with it, servers that lag, freeze or fail are not used, and writes follow changes of the primary.

    Args:
        replicas: the engine that stands for all replicas.

    Raises:
        ConfigurationError: at the start, the primary refuses the user, the password or the database, or its
            certificate is not accepted.

    """

    def __init__(self, replicas: ReplicaRole) -> None:
        topology, settings = replicas.topology, replicas.settings
        super().__init__(topology, settings, is_async=replicas.sync_engine.dialect.is_async)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> typing.Self:
        try:
            await self._probe_first()
        except BaseException:
            await self._end()
            raise
        snapshot = typing.cast(Snapshot, self._topology.snapshot)  # each answer and each failure has published one
        aliases = {server.name for server in self._topology.servers if server.url != self._leader.url}
        self._journal.log_start(snapshot, self._observed, declared=self._declared, elsewhere=aliases)
        self._tasks = [self._start_watch(server) for server in self._topology.servers]
        for server in self._topology.servers:
            server.health.start_watching()
        if isinstance(self._topology.primary, PrimaryRole):
            self._topology.primary.wait_for_changes(min(self._answer_time, self._settings.connect_timeout))
        self._topology.watcher = self
        return self

    def leave_to_parent(self) -> None:
        """Leave its connections to the process that this one was forked from."""
        leave_to_parent(descriptor for probe in self._probes.values() for descriptor in probe.descriptors())

    async def _probe_first(self) -> None:
        """Probe every server once, and briefly repeat this for servers whose lag one probe cannot measure."""
        # The primary first: a replica's position is compared with an earlier one of the primary.
        first = [server for server in self._topology.servers if server.is_declared_primary]
        others = [server for server in self._topology.servers if not server.is_declared_primary]
        for servers in (first, others):
            await asyncio.gather(*(self._probe(server, starting=True) for server in servers))
        await asyncio.gather(*(self._probe_further(server) for server in others if is_name(server.probed_host)))
        deadline = time.monotonic() + LAG_TIMEOUT
        while (
            unclear := [server for server in others if self._lag_is_unclear(server)]
        ) and time.monotonic() < deadline:
            await asyncio.sleep(LAG_TIMEOUT / 20)
            await asyncio.gather(*(self._probe(server) for server in unclear))

    async def _probe_further(self, server: Server) -> None:
        """Ask on further connections whether a name leads to several servers, as a reader endpoint does."""
        known = self._observed.get(server.name)
        if known is None or not known.in_recovery:
            return
        further = [self._create_probe(server) for _ in range(FURTHER_PROBES)]
        answers = await asyncio.gather(*(probe.ask() for probe in further), return_exceptions=True)
        await asyncio.gather(*(probe.close() for probe in further))
        if any(isinstance(seen, Observation) and seen.started != known.started for seen in answers):
            self._note_shared_name(server)

    def _lag_is_unclear(self, server: Server) -> bool:
        state = self._topology.snapshot.servers[server.name] if self._topology.snapshot else None
        return state is not None and state.lag_bytes is not None and state.lag_seconds is None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        self._topology.watcher = None
        watches, self._tasks = self._tasks, []
        tasks = [*watches, *self._immediate_probes.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._end()

    async def _end(self) -> None:
        self._topology.publish(None)
        for server in self._topology.servers:
            server.health.stop_watching()
        if isinstance(self._topology.primary, PrimaryRole):
            self._topology.primary.wait_for_changes(0.0)
            self._topology.primary.declare_up()
        await asyncio.gather(*(probe.close() for probe in self._probes.values()))

    def _start_watch(self, server: Server) -> asyncio.Task[None]:
        watch = asyncio.create_task(self._watch(server))
        watch.add_done_callback(functools.partial(self._watch_ended, server))
        return watch

    def _watch_ended(self, server: Server, watch: asyncio.Task[None]) -> None:
        """Forget a server whose watch was cancelled from outside: its state would never change again."""
        if watch not in self._tasks:
            return  # by this monitor
        error = None if watch.cancelled() else watch.exception()
        logger.error(
            "The probe task of %s has ended: its state is unknown. Restart the application.",
            server.name,
            exc_info=error,
        )
        self._unwatched.add(server.name)
        self._observed.pop(server.name, None)
        with self._errors_logged(server.name):
            self._conclude()

    async def _watch(self, server: Server) -> None:
        pause = self._settings.probe_interval
        while True:
            await asyncio.sleep(pause * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311  # for spreading
            answered = False
            with self._errors_logged(server.name):
                answered = await self._probe(server)
            if answered:
                pause = self._settings.probe_interval
            else:
                pause = min(pause * 2, max(LONGEST_PAUSE, self._settings.probe_interval))

"""Monitor the servers: one task and one connection for each, and a snapshot that is replaced as a whole."""

import asyncio
import collections.abc
import contextlib
import datetime as dt
import functools
import logging
import math
import random
import time
import types
import typing

from sqlalchemy import make_url

from modern_di_replicas.cluster.background import in_thread
from modern_di_replicas.cluster.connecting import connect_args
from modern_di_replicas.cluster.engines.primary import PrimaryRole
from modern_di_replicas.cluster.engines.replica import ReplicaRole
from modern_di_replicas.cluster.failures import reason_of
from modern_di_replicas.cluster.monitoring.conclusions import JITTER, Conclusions
from modern_di_replicas.cluster.monitoring.probe import Probe
from modern_di_replicas.cluster.names import is_name
from modern_di_replicas.cluster.pools.sockets import leave_to_parent
from modern_di_replicas.cluster.questions import SOURCES
from modern_di_replicas.cluster.server import Server
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.routing.snapshot import Observation, Snapshot
from modern_di_replicas.servers import redacted


logger = logging.getLogger("modern_di_replicas")

LOOKS_BEHIND: typing.Final = 2
"""The number of further connections to a name at the start, to find out whether it always leads to the same server."""

LONGEST_PAUSE: typing.Final = 2.0
"""The longest pause in seconds between two probes of a server that is down."""

FIRST_LOOK: typing.Final = 0.25
"""Timeout in seconds at the start for the replicas to reach the primary's position of that moment."""

_TOO_MANY_CONNECTIONS: typing.Final = "53300"

_REFUSALS: typing.Final = ("28", "3D")
"""SQLSTATE classes of a wrong user, password or database, which do not go away."""


class Monitor(Conclusions):
    """Monitors the servers of one application while it runs: `async with Monitor(replica_engine): ...`.

    `setup_replicas` and `ReplicasPlugin` start it with the application. Without it the library relies on the failures
    of sessions; with it, servers that lag, freeze or die are not used, and writes follow a primary that moves.

    Args:
        replicas: the engine that stands for all replicas.

    Raises:
        ConfigurationError: at the start, the primary refuses the user, the password or the database, or its
            certificate is not accepted.

    """

    def __init__(self, replicas: ReplicaRole) -> None:
        topology, settings = replicas.topology, replicas.settings
        super().__init__(topology, settings)
        self._is_async = replicas.sync_engine.dialect.is_async
        self._probes = {server.name: self._create_probe(server) for server in topology.servers}
        self._immediate_probes: dict[str, asyncio.Task[None]] = {}
        self._next_answer: asyncio.Future[None] | None = None
        self._asked_primary_at = -math.inf
        self._missing: dict[str, frozenset[str]] = {}
        """The sources that servers do not offer, as they were last logged."""
        self._tasks: list[asyncio.Task[None]] = []

    def _create_probe(self, server: Server) -> Probe:
        declared, settings = server.declared, self._settings
        arguments = connect_args(settings, declared, "monitor")
        if not self._is_async and callable(password := arguments.get("password")):
            # The password function of a synchronous application may block, and all probes share this thread.
            arguments["password"] = in_thread(password)
        return Probe(url=declared.probe_url or declared.url, timeout=settings.probe_timeout, connect_args=arguments)

    async def __aenter__(self) -> typing.Self:
        try:
            await self._look_around()
        except BaseException:
            await self._end()
            raise
        snapshot = typing.cast(Snapshot, self._topology.snapshot)  # each answer and each failure has published one
        aliases = {server.name for server in self._topology.servers if server.url != self._leader.url}
        self._journal.began(snapshot, self._observed, declared=self._declared, elsewhere=aliases)
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

    async def _look_around(self) -> None:
        """Probe every server once, and briefly repeat this for servers whose lag one probe cannot measure."""
        # The primary first: a replica's position is compared with an earlier one of the primary.
        first = [server for server in self._topology.servers if server.is_declared_primary]
        others = [server for server in self._topology.servers if not server.is_declared_primary]
        for servers in (first, others):
            await asyncio.gather(*(self._probe(server, starting=True) for server in servers))
        await asyncio.gather(*(self._look_behind(server) for server in others if is_name(server.probed_host)))
        deadline = time.monotonic() + FIRST_LOOK
        while (
            unclear := [server for server in others if self._lag_is_unclear(server)]
        ) and time.monotonic() < deadline:
            await asyncio.sleep(FIRST_LOOK / 20)
            await asyncio.gather(*(self._probe(server) for server in unclear))

    async def _look_behind(self, server: Server) -> None:
        """Ask on further connections whether a name leads to several servers, as a reader endpoint does."""
        known = self._observed.get(server.name)
        if known is None or not known.in_recovery:
            return
        further = [self._create_probe(server) for _ in range(LOOKS_BEHIND)]
        answers = await asyncio.gather(*(probe.ask() for probe in further), return_exceptions=True)
        await asyncio.gather(*(probe.close() for probe in further))
        if any(isinstance(seen, Observation) and seen.started != known.started for seen in answers):
            self._note_several(server)

    def _note_several(self, server: Server) -> None:
        """Stop relying on the position of a name that leads to several servers."""
        if server.name in self._topology.positions.several:
            return
        self._topology.positions.several.add(server.name)
        self._topology.positions.reached.pop(server.name, None)
        self._topology.positions.furthest.pop(server.name, None)
        logger.warning(
            "%s leads to several servers: its lag is that of one of them, and a read after a write checks on its own "
            "connection whether it is fresh enough. Declare each replica by its own address.",
            server.name,
        )

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
        with self._guarded(server.name):
            self._conclude()

    @contextlib.contextmanager
    def _guarded(self, name: str) -> collections.abc.Iterator[None]:
        """Log an error of the monitor itself; it goes on."""
        try:
            yield
        except Exception:
            logger.exception("The monitor failed while it evaluated %s; it continues.", name)
            if time.monotonic() - self._concluded_at > self._answer_time:
                self._publish_unknown()  # its last conclusions are too old to rely on

    async def _watch(self, server: Server) -> None:
        pause = self._settings.probe_interval
        while True:
            await asyncio.sleep(pause * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311  # for spreading
            answered = False
            with self._guarded(server.name):
                answered = await self._probe(server)
            if answered:
                pause = self._settings.probe_interval
            else:
                pause = min(pause * 2, max(LONGEST_PAUSE, self._settings.probe_interval))

    async def _probe(self, server: Server, *, starting: bool = False) -> bool:
        """Ask one server, and publish the changes; return whether it answered."""
        try:
            seen = await self._probes[server.name].ask()
        except Exception as error:  # noqa: BLE001  # a dying connection confuses the driver in many ways; watch on
            self._no_answer(server, error, starting=starting)
            self._conclude()
            return False
        was_down = server.health.is_down
        was_in_trouble = self._journal.over(server.name, "answer")
        server.health.probe_succeeded()
        self._note_connection(server)
        if (was_down or was_in_trouble) and not server.health.is_down:
            logger.warning("%s is back.", server.name)
        if _leads_elsewhere(self._observed.get(server.name), seen):
            self._note_several(server)
        self._observed[server.name] = seen
        self._conclude()
        self._note_answer(server.name)
        return True

    def _note_connection(self, server: Server) -> None:
        """Apply a probe's findings about the connections to a server, and about the privileges of its account."""
        probe = self._probes[server.name]
        engine = self._topology.primary if server.name == self._primary else None
        if isinstance(engine, PrimaryRole):
            engine.declare_up()
        if probe.has_replaced_silent:
            probe.has_replaced_silent = False
            logger.warning("A connection to %s was silent, and a new one works: all are replaced.", server.name)
            server.health.end_silent()
            if isinstance(engine, PrimaryRole):
                engine.end_silent()
        if probe.missing != self._missing.get(server.name, frozenset()):
            self._missing[server.name] = probe.missing
            for source in (SOURCES[name] for name in sorted(probe.missing)):
                logger.warning(
                    "%s cannot be asked for %s: %s. If the server supports it: %s;",
                    server.name,
                    source.name,
                    source.cost,
                    source.grant(probe.account),
                )

    def _note_answer(self, name: str) -> None:
        if name == self._primary and self._next_answer is not None:
            self._next_answer.set_result(None)
            self._next_answer = None

    @property
    def timeout(self) -> float:
        """Timeout in seconds for a server's answer."""
        return self._settings.probe_timeout

    def probe_now(self, name: str) -> asyncio.Task[None]:
        """Ask one server for its position now; concurrent callers share the answer."""
        look = self._immediate_probes.get(name)
        if look is None or look.done():
            look = self._immediate_probes[name] = asyncio.create_task(self._probe_now(name))
        return look

    async def _probe_now(self, name: str) -> None:
        try:
            seen = await self._probes[name].ask(briefly=True)
        except Exception:  # noqa: BLE001  # what that means is for the regular probe to say
            return
        known = self._observed.get(name)
        if known is None:
            return  # it is down, and regular probes bring it back
        self._observed[name] = seen
        with self._guarded(name):
            self._take_over(name, seen, known)
        self._note_answer(name)

    def _take_over(self, name: str, seen: Observation, known: Observation) -> None:
        if (seen.in_recovery, seen.timeline, seen.system) != (known.in_recovery, known.timeline, known.system):
            self._conclude()
        elif name == self._primary:
            if self._topology.positions.is_set_back(seen):
                self._conclude()
            else:
                self._topology.positions.follow(seen)
        elif name in self._topology.positions.reached and seen.in_recovery:
            self._topology.positions.saw(name, seen)

    async def primary_answers(self) -> bool:
        """Wait for the primary's next answer; return whether it came before the primary counts as down.

        It is asked at once, unless it was asked within the last probe interval.
        """
        interval, now = self._settings.probe_interval, time.monotonic()
        if self._next_answer is None:
            self._next_answer = asyncio.get_running_loop().create_future()
        answer: asyncio.Future[None] = self._next_answer
        waited_for = {answer}
        if now - self._asked_primary_at >= interval:
            self._asked_primary_at = now
            waited_for.add(self.probe_now(self._primary))
        await asyncio.wait(waited_for, timeout=self._answer_time, return_when=asyncio.FIRST_COMPLETED)
        return answer.done()

    def _no_answer(self, server: Server, error: Exception, *, starting: bool) -> None:
        state = self._settings.driver.sqlstate(error) or ""
        reason = reason_of(error)
        is_fatal = starting and server.is_declared_primary
        if state.startswith(_REFUSALS):
            refused = self._misconfigured(
                server, f"the server refuses it ({reason}); correct the user, password or database, or its pg_hba.conf"
            )
            if is_fatal:
                raise refused from None
            self._journal.trouble(server.name, "answer", refused.message().rstrip("."), level=logging.ERROR)
            # It is up: open connections go on, and new ones are refused until the password is corrected.
            self._observed.pop(server.name, None)
            return
        if state == _TOO_MANY_CONNECTIONS:
            # It is up. A standby whose lag is unknown does not serve; for the primary the last answer counts.
            self._journal.trouble(
                server.name, "answer", f"{server.name} has no connection left for the monitor: {reason}"
            )
            if server.name != self._primary:
                self._observed.pop(server.name, None)
            return
        is_untrusted = self._settings.driver.is_untrusted(error)
        if is_untrusted and is_fatal:
            remedy = f"TLS does not accept it ({reason}); correct the host name, the server's certificate or your CA's"
            raise self._misconfigured(server, remedy) from None
        level = logging.ERROR if is_untrusted else logging.WARNING
        self._journal.trouble(server.name, "answer", f"{server.name} is down: {reason}", level=level)
        self._observed.pop(server.name, None)
        server.health.declare_down()
        engine = self._topology.primary
        if server.name == self._primary and isinstance(engine, PrimaryRole):
            timeout = min(self._settings.connect_timeout, self._settings.probe_timeout)
            engine.declare_down(timeout=timeout, reason=reason, is_silent=isinstance(error, TimeoutError))

    @staticmethod
    def _misconfigured(server: Server, remedy: str) -> ConfigurationError:
        url = make_url(server.declared.probe_url or server.declared.url)
        return ConfigurationError(field=f"the URL of {server.name}", value=redacted(url), remedy=remedy)

    def _ask_everybody(self) -> None:
        """Probe every server now: there is a new primary, and the state of the others is out of date."""
        for name in self._probes:
            self.probe_now(name)


def _leads_elsewhere(before: Observation | None, now: Observation) -> bool:
    """Return whether a name now leads to another standby: one that started earlier, as no restart can explain."""
    if before is None or not (before.in_recovery and now.in_recovery):
        return False
    then, since = before.started, now.started
    return isinstance(then, dt.datetime) and isinstance(since, dt.datetime) and since < then

"""Watches the servers: one task and one connection for each, and a snapshot that is swapped as a whole."""

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

from modern_di_replicas.cluster.connecting import connect_args
from modern_di_replicas.cluster.engines.primary import PrimaryEngine
from modern_di_replicas.cluster.engines.replica import ReplicaEngine
from modern_di_replicas.cluster.failures import reason_of
from modern_di_replicas.cluster.monitoring.journal import Journal
from modern_di_replicas.cluster.monitoring.probe import Probe
from modern_di_replicas.cluster.names import is_name
from modern_di_replicas.cluster.questions import SOURCES
from modern_di_replicas.cluster.topology import Server
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.routing.snapshot import Observation, Role, ServerState, Snapshot, assemble, find_primary
from modern_di_replicas.routing.succession import History, find_successor
from modern_di_replicas.servers import redacted


logger = logging.getLogger("modern_di_replicas")

LOOKS_BEHIND: typing.Final = 2
"""How many further connections are made at the start to a name, to see whether it always leads to the same server."""

LONGEST_PAUSE: typing.Final = 2.0
"""Seconds between two probes of a server that is down, at the most."""

FIRST_LOOK: typing.Final = 0.25
"""Seconds that the start waits, at the most, for replicas to reach where the primary was when it began."""

JITTER: typing.Final = 0.1
"""Each pause is up to this share longer or shorter, so that many processes do not ask at once."""

_TOO_MANY_CONNECTIONS: typing.Final = "53300"

_REFUSALS: typing.Final = ("28", "3D")
"""SQLSTATE classes of a wrong user, password or database: nothing that time heals."""


class Monitor:
    """Watches the servers of one application while it runs: `async with Monitor(replica_engine): ...`.

    `setup_replicas` and `ReplicasPlugin` start it with the application. Without it the library works on what
    sessions meet; with it, servers that lag, freeze or die leave the rotation by themselves, and writes follow a
    primary that moves.

    Args:
        replicas: the engine that stands for all replicas.

    Raises:
        ConfigurationError: at the start, the primary refuses the user, the password or the database.

    """

    def __init__(self, replicas: ReplicaEngine) -> None:
        topology, settings = replicas.topology, replicas.settings
        self._topology = topology
        self._settings = settings
        self._probes = {server.name: self._create_probe(server) for server in topology.servers}
        self._not_promotable = {server.name for server in topology.servers if not server.declared.promotable}
        self._observed: dict[str, Observation] = {}
        self._immediate_probes: dict[str, asyncio.Task[None]] = {}
        self._next_answer: asyncio.Future[None] | None = None
        self._asked_primary_at = -math.inf
        self._declared = next(server.name for server in topology.servers if server.is_declared_primary)
        self._primary = self._declared
        self._lost_primary_at: float | None = None
        self._system: int | None = None
        self._timeline = 0
        self._newest: dict[str, int] = {}
        """The newest timeline each server was on in this PostgreSQL cluster."""
        self._diverged: dict[str, Observation] = {}
        """Standbys that have what the primary, restored from a backup, has not."""
        self._journal = Journal()
        self._missing: dict[str, frozenset[str]] = {}
        """What servers cannot be asked for, as it was logged last."""
        self._concluded_at = -math.inf
        self._unwatched: set[str] = set()
        """Servers whose watch was cancelled from outside."""
        self._tasks: list[asyncio.Task[None]] = []

    def _create_probe(self, server: Server) -> Probe:
        declared, settings = server.declared, self._settings
        return Probe(
            url=declared.probe_url or declared.url,
            timeout=settings.probe_timeout,
            connect_args=connect_args(settings, declared, "monitor"),
        )

    async def __aenter__(self) -> typing.Self:
        try:
            await self._look_around()
        except BaseException:
            await self._end()
            raise
        if (snapshot := self._topology.snapshot) is not None:
            aliases = {server.name for server in self._topology.servers if server.url != self._leader.url}
            self._journal.began(snapshot, self._observed, declared=self._declared, elsewhere=aliases)
        self._tasks = [self._start_watch(server) for server in self._topology.servers]
        for server in self._topology.servers:
            server.health.start_watching()
        if isinstance(self._topology.primary, PrimaryEngine):
            self._topology.primary.wait_for_changes(min(self._answer_time, self._settings.connect_timeout))
        self._topology.watcher = self
        return self

    async def _look_around(self) -> None:
        """Probe every server once; and again for a moment those whose lag a first look cannot tell."""
        # The primary first: what a replica says is compared with what the primary said before.
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
        """Do not rely on the position of a name behind which there are several servers."""
        if server.name in self._topology.positions.several:
            return
        self._topology.positions.several.add(server.name)
        self._topology.positions.reached.pop(server.name, None)
        self._topology.positions.furthest.pop(server.name, None)
        logger.warning(
            "%s leads to several servers: its lag is that of one of them, and reads after a write use other replicas "
            "or the primary. Declare each replica by its own address.",
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
        if isinstance(self._topology.primary, PrimaryEngine):
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
            "The watch of %s has ended: nothing is known of it any more. Restart the application.",
            server.name,
            exc_info=error,
        )
        self._unwatched.add(server.name)
        self._observed.pop(server.name, None)
        with self._guarded(server.name):
            self._conclude()

    @contextlib.contextmanager
    def _guarded(self, name: str) -> collections.abc.Iterator[None]:
        """Log whatever is raised while something is concluded; the watch goes on."""
        try:
            yield
        except Exception:
            logger.exception("The monitor failed while it looked at %s; it goes on.", name)
            if time.monotonic() - self._concluded_at > self._answer_time:
                self._publish_unknown()  # what was concluded last is too old to rely on

    def _publish_unknown(self) -> None:
        states = {server.name: ServerState(name=server.name) for server in self._topology.servers}
        self._topology.publish(Snapshot(servers=states))

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
        """Ask one server, and publish what that changes; return whether it answered."""
        try:
            seen = await self._probes[server.name].ask()
        except Exception as error:  # noqa: BLE001  # a dying connection confuses the driver in many ways; watch on
            self._no_answer(server, error, starting=starting)
            self._conclude()
            return False
        was_down = server.health.is_down
        self._journal.over(server.name, "answer")
        server.health.probe_succeeded()
        self._note_connection(server)
        if was_down and not server.health.is_down:
            logger.warning("%s is back.", server.name)
        if _leads_elsewhere(self._observed.get(server.name), seen):
            self._note_several(server)
        self._observed[server.name] = seen
        self._conclude()
        self._note_answer(server.name)
        return True

    def _note_connection(self, server: Server) -> None:
        """Take over what a probe found out about the connections to a server, and about its own account there."""
        probe = self._probes[server.name]
        engine = self._topology.primary if server.name == self._primary else None
        if isinstance(engine, PrimaryEngine):
            engine.declare_up()
        if probe.has_replaced_silent:
            probe.has_replaced_silent = False
            logger.warning("A connection to %s was silent, and a new one works: all are made anew.", server.name)
            server.health.end_silent()
            if isinstance(engine, PrimaryEngine):
                engine.end_silent()
        if probe.missing != self._missing.get(server.name, frozenset()):
            self._missing[server.name] = probe.missing
            for source in (SOURCES[name] for name in sorted(probe.missing)):
                logger.warning(
                    "%s cannot be asked for %s: %s. Unless the function is not supported there: %s;",
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
        """How many seconds a server has to answer."""
        return self._settings.probe_timeout

    @property
    def _answer_time(self) -> float:
        """How many seconds from now every server has been asked that was up, and has answered or is down."""
        return self._settings.probe_interval * (1 + JITTER) + self._settings.probe_timeout

    def probe_now(self, name: str) -> asyncio.Task[None]:
        """Ask one server where it is, now; those who do so at the same time share the answer."""
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
            return  # it is down, and comes back by regular probes
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
        if state.startswith(_REFUSALS):
            refused = ConfigurationError(
                field=f"the URL of {server.name}",
                value=redacted(make_url(server.declared.probe_url or server.declared.url)),
                remedy=f"the server refuses it ({reason}); correct the user, password or database, or its pg_hba.conf",
            )
            if starting and server.is_declared_primary:
                raise refused from None
            self._journal.trouble(server.name, "answer", refused.message().rstrip("."), level=logging.ERROR)
            # It lives: connections that are open go on, and new ones are refused until there is another password.
            self._observed.pop(server.name, None)
            return
        if state == _TOO_MANY_CONNECTIONS:
            # It lives. A standby whose lag is not known does not serve; of the primary the last answer counts.
            self._journal.trouble(
                server.name, "answer", f"{server.name} has no connection left for the monitor: {reason}"
            )
            if server.name != self._primary:
                self._observed.pop(server.name, None)
            return
        self._journal.trouble(server.name, "answer", f"{server.name} is down: {reason}")
        self._observed.pop(server.name, None)
        server.health.declare_down()
        engine = self._topology.primary
        if server.name == self._primary and isinstance(engine, PrimaryEngine):
            engine.declare_down(timeout=min(self._settings.connect_timeout, self._settings.probe_timeout))

    def _conclude(self) -> None:
        """Publish what all observations together mean, and let writes follow a primary that moved."""
        primary = self._find_primary()
        positions = self._topology.positions
        if primary is None:
            self._lost_primary_at = self._lost_primary_at or time.monotonic()
            ours = self._ours()
            newest = (seen.timeline for seen in self._promotable(ours).values() if self._system == seen.system)
            before, self._timeline = self._timeline, max(self._timeline, *newest, 0)
            if self._timeline > before:
                self._ask_everybody()
            positions.assume(ours.values())
        else:
            leader = self._observed[primary]
            if positions.is_set_back(leader):
                self._set_back(primary, leader)
            if primary != self._primary or leader.timeline > self._timeline > 0 or self._is_fenced:
                self._move_to(primary)
            self._lost_primary_at, self._system, self._timeline = None, leader.system, leader.timeline
            positions.follow(leader)
        self._note_timelines()
        snapshot = assemble(
            (server.name for server in self._topology.servers),
            self._observed,
            history=positions.history,
            primary=primary,
            timeline=self._timeline,
            lost_primary_at=self._lost_primary_at,
            system=self._system,
            diverged=self._diverged,
        )
        for state in snapshot.servers.values():
            if state.role is Role.STANDBY:
                positions.note_written(self._observed[state.name])
        self._journal.roles(snapshot)
        if primary is None and self._unwatched:
            self._publish_unknown()  # one of them may be the primary, and the lag of its replicas would have no limit
        else:
            self._topology.publish(snapshot)
        self._concluded_at = time.monotonic()
        engine, is_former = self._topology.primary, snapshot.servers[self._primary].role in (Role.FENCED, Role.FOREIGN)
        if is_former and isinstance(engine, PrimaryEngine):
            longest = self._succession_time + self._answer_time
            engine.fence(timeout=min(longest, self._settings.connect_timeout))

    def _ours(self) -> dict[str, Observation]:
        """Return what those servers said that belong to the PostgreSQL cluster that is known."""
        system = self._system
        if system is None and self._declared in self._observed:
            system = self._observed[self._declared].system
        return {name: seen for name, seen in self._observed.items() if system in (None, seen.system)}

    def _promotable(self, observed: collections.abc.Mapping[str, Observation]) -> dict[str, Observation]:
        return {name: seen for name, seen in observed.items() if name not in self._not_promotable}

    def _find_primary(self) -> str | None:
        primary = find_primary(self._promotable(self._ours()), current=self._primary, timeline=self._timeline)
        if primary is not None or self._system is None or self._lost_primary_at is None:
            return primary
        silent = time.monotonic() - self._lost_primary_at
        if silent < self._succession_time:
            return None
        successor = find_successor(
            self._observed,
            history=History(system=self._system, timeline=self._timeline),
            declared=self._declared,
            newest=self._newest,
            not_promotable=self._not_promotable,
        )
        if successor is not None:
            self._begin_anew(successor, silent)
        return successor

    @property
    def _succession_time(self) -> float:
        """How many seconds the primary has to be lost before another history may take its place."""
        return self._settings.probe_timeout + 2 * self._settings.probe_interval

    def _begin_anew(self, successor: str, silent: float) -> None:
        """Forget a PostgreSQL cluster whose primary is gone: another one, or a restored backup, is at its addresses."""
        seen = self._observed[successor]
        what = "a restored backup of its cluster" if seen.system == self._system else "another PostgreSQL cluster"
        logger.warning(
            "The primary has been gone for %.1f s, and %s has %s (system %d, timeline %d; before: system %d, timeline "
            "%d): it is the primary now. What was known of the former one is forgotten, tokens included.",
            silent,
            successor,
            what,
            seen.system,
            seen.timeline,
            self._system,
            self._timeline,
        )
        self._topology.forget_writes()
        self._newest.clear()
        self._diverged.clear()
        self._system, self._timeline = seen.system, seen.timeline
        self._follow(successor)

    def _set_back(self, primary: str, leader: Observation) -> None:
        """Forget what was written before a backup was restored on the same timeline."""
        self._diverged = {
            name: seen
            for name, seen in self._observed.items()
            if seen.in_recovery and seen.system == leader.system and seen.lsn > leader.lsn
        }
        ahead = ", ".join(self._diverged)
        logger.warning(
            "%s has less than before on the same timeline: a backup was restored. What was known is forgotten%s.",
            primary,
            f", and not used are standbys that have what it has not, until they are rebuilt: {ahead}" if ahead else "",
        )
        self._topology.forget_writes()

    def _note_timelines(self) -> None:
        for name, seen in self._observed.items():
            if seen.system == self._system:
                self._newest[name] = max(seen.timeline, self._newest.get(name, 0))
        _, written = self._topology.positions.history.last or (0.0, 0)
        for name, before in list(self._diverged.items()):
            seen = self._observed.get(name, before)
            if seen.lsn < before.lsn or (seen.started != before.started and before.lsn <= written):
                del self._diverged[name]  # it was rebuilt from the primary

    def _ask_everybody(self) -> None:
        """Probe every server now: there is a new primary, and what is known of the others is from before."""
        for name in self._probes:
            self.probe_now(name)

    @property
    def _is_fenced(self) -> bool:
        return isinstance(self._topology.primary, PrimaryEngine) and self._topology.primary.is_fenced

    def _move_to(self, primary: str) -> None:
        logger.warning("The primary is %s now; it was %s. Writes follow.", primary, self._primary)
        self._topology.positions.history.clear()
        self._follow(primary)

    @property
    def _leader(self) -> Server:
        return next(server for server in self._topology.servers if server.name == self._primary)

    def _follow(self, primary: str) -> None:
        self._primary = primary
        if isinstance(self._topology.primary, PrimaryEngine):
            leader = self._leader.declared
            self._topology.primary.follow(leader.url, connect_args=connect_args(self._settings, leader, "primary"))


def _leads_elsewhere(before: Observation | None, now: Observation) -> bool:
    """Return whether a name led to one standby and now leads to another one: a restart only makes it younger."""
    if before is None or not (before.in_recovery and now.in_recovery):
        return False
    then, since = before.started, now.started
    return isinstance(then, dt.datetime) and isinstance(since, dt.datetime) and since < then

"""Ask a server, and apply what its answer, or its absence, says of it."""

import abc
import asyncio
import collections.abc
import contextlib
import datetime as dt
import logging
import time
import typing

from sqlalchemy import make_url

from modern_di_replicas.cluster.background import in_thread
from modern_di_replicas.cluster.connecting import connect_args
from modern_di_replicas.cluster.engines.primary import PrimaryRole
from modern_di_replicas.cluster.failures import reason_of
from modern_di_replicas.cluster.monitoring.conclusions import Conclusions
from modern_di_replicas.cluster.monitoring.probe import Probe
from modern_di_replicas.cluster.questions import SOURCES
from modern_di_replicas.cluster.server import Server
from modern_di_replicas.cluster.topology import Topology
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.routing.snapshot import Observation
from modern_di_replicas.servers import redacted
from modern_di_replicas.settings import ReplicationSettings


logger = logging.getLogger("modern_di_replicas")

_TOO_MANY_CONNECTIONS: typing.Final = "53300"

_REFUSALS: typing.Final = ("28", "3D")
"""SQLSTATE classes of a wrong user, password or database, which do not go away."""


class Answers(Conclusions, abc.ABC):
    """Asks each server on its own connection.

    Args:
        topology: knows the servers, and receives each snapshot.
        settings: how often and how long servers are asked.
        is_async: whether the application is asynchronous.

    """

    def __init__(self, topology: Topology, settings: ReplicationSettings, *, is_async: bool) -> None:
        super().__init__(topology, settings)
        self._is_async = is_async
        self._probes = {server.name: self._create_probe(server) for server in topology.servers}
        self._next_answer: asyncio.Future[None] | None = None
        """Done with the primary's next answer, if a task waits for it."""
        self._missing: dict[str, frozenset[str]] = {}
        """The sources that servers do not offer, as they were last logged."""

    def _create_probe(self, server: Server) -> Probe:
        declared, settings = server.declared, self._settings
        arguments = connect_args(settings, declared, "monitor")
        if not self._is_async and callable(password := arguments.get("password")):
            # The password function of a synchronous application may block, and all probes share this thread.
            arguments["password"] = in_thread(password)
        return Probe(url=declared.probe_url or declared.url, timeout=settings.probe_timeout, connect_args=arguments)

    async def _probe(self, server: Server, *, starting: bool = False) -> bool:
        """Ask one server, and publish the changes; return whether it answered."""
        try:
            seen = await self._probes[server.name].ask()
        except Exception as error:  # noqa: BLE001  # a dying connection confuses the driver in many ways; watch on
            self._no_answer(server, error, starting=starting)
            self._conclude()
            return False
        was_down = server.health.is_down
        had_problem = self._journal.note_resolved(server.name, "answer")
        server.health.probe_succeeded()
        self._note_connection(server)
        if (was_down or had_problem) and not server.health.is_down:
            logger.warning("%s is back.", server.name)
        if _is_another_server(self._observed.get(server.name), seen):
            self._note_shared_name(server)
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

    def _note_shared_name(self, server: Server) -> None:
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

    def _note_answer(self, name: str) -> None:
        if name == self._primary and self._next_answer is not None:
            self._next_answer.set_result(None)
            self._next_answer = None

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
            self._journal.note_problem(server.name, "answer", refused.message().rstrip("."), level=logging.ERROR)
            # It is up: open connections stay usable, and new ones are refused until the password is corrected.
            self._observed.pop(server.name, None)
            return
        if state == _TOO_MANY_CONNECTIONS:
            # It is up. A standby whose lag is unknown does not serve; for the primary the last answer counts.
            self._journal.note_problem(
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
        self._journal.note_problem(server.name, "answer", f"{server.name} is down: {reason}", level=level)
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

    @contextlib.contextmanager
    def _errors_logged(self, name: str) -> collections.abc.Iterator[None]:
        """Log an error of the monitor itself, which continues."""
        try:
            yield
        except Exception:
            logger.exception("The monitor failed while it evaluated %s; it continues.", name)
            if time.monotonic() - self._concluded_at > self._answer_time:
                self._publish_unknown()  # its last conclusions are too old to rely on


def _is_another_server(before: Observation | None, now: Observation) -> bool:
    """Return whether a name now leads to another standby: one that started earlier, as no restart can explain."""
    if before is None or not (before.in_recovery and now.in_recovery):
        return False
    then, since = before.started, now.started
    return isinstance(then, dt.datetime) and isinstance(since, dt.datetime) and since < then

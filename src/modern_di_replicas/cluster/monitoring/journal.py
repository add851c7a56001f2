"""The log of the servers: one line for each change, and one reminder a minute while a problem lasts."""

import collections.abc
import dataclasses
import logging
import time
import typing

from modern_di_replicas.routing.snapshot import Observation, Role, Snapshot


logger = logging.getLogger("modern_di_replicas")

REMINDER_INTERVAL: typing.Final = 60.0
"""Seconds after which a problem is logged again."""

CHANGE_INTERVAL: typing.Final = 10.0
"""Seconds between two lines about one server whose problem changes."""

_ROLES: typing.Final = {
    Role.FENCED: (
        "it runs as a primary on an older timeline; stop it, or make it a standby; or, if it is a restored "
        "backup, stop the servers of the newer timeline"
    ),
    Role.FOREIGN: "it belongs to another PostgreSQL cluster than the primary",
    Role.LEFT_BEHIND: (
        "it has not followed the primary to its timeline, or is ahead of a restored primary; rebuild it"
    ),
}

_PROMOTED: typing.Final = (
    "it was promoted, and is declared with promotable=False; remove it from the replicas, or make it a standby"
)


@dataclasses.dataclass(slots=True)
class _Problem:
    what: str
    level: int
    since: float
    logged: float | None


class Journal:
    """Logs the changes of servers, without repeating itself.

    Args:
        settling: seconds until a server that was stopped for a switchover is found to be down. Until then, its last
            answer makes it look like a second primary.
        clock: a monotonic clock, in seconds.

    """

    def __init__(self, *, settling: float = 0.0, clock: collections.abc.Callable[[], float] = time.monotonic) -> None:
        self._settling = settling
        self._clock = clock
        self._problems: dict[tuple[str, str], _Problem] = {}

    def note_problem(
        self, server: str, topic: str, what: str, *, level: int = logging.WARNING, after: float = 0.0
    ) -> None:
        """Record a problem: logged when it is new, when it changes, and once a minute while it lasts.

        Args:
            server: the name of the server.
            topic: a server has at most one problem for each topic.
            what: a sentence without its full stop.
            level: the log level.
            after: for how many seconds it has to last before it is logged.

        """
        now = self._clock()
        known = self._problems.get((server, topic))
        if known is None:
            known = self._problems[server, topic] = _Problem(what, level, now, None)
        if known.logged is None:
            if now - known.since >= after:
                known.what, known.level, known.logged = what, level, now
                logger.log(level, "%s.", what)
            return
        since = now - known.logged
        # The error of a server may change from one probe to the next: refused, silent, refused.
        if since >= REMINDER_INTERVAL or level != known.level or (what != known.what and since >= CHANGE_INTERVAL):
            known.what, known.level, known.logged = what, level, now
            logger.log(level, "For %.0f s: %s.", now - known.since, what)

    def note_resolved(self, server: str, topic: str) -> bool:
        """Record that a problem is over; return whether it had been logged."""
        known = self._problems.pop((server, topic), None)
        return known is not None and known.logged is not None

    def log_roles(self, snapshot: Snapshot, *, not_promotable: collections.abc.Container[str] = ()) -> None:
        """Log which servers cannot be used because of their role; a server that is down is another topic.

        Args:
            snapshot: the state of the servers.
            not_promotable: the names of servers that never count as a primary.

        """
        for state in snapshot.servers.values():
            if state.role is Role.UNKNOWN:
                if (known := self._problems.get((state.name, "role"))) is not None and known.logged is None:
                    self.note_resolved(state.name, "role")  # it is going down, which is another topic
                continue
            if (why := _ROLES.get(state.role)) is None:
                self.note_resolved(state.name, "role")
            else:
                # After a failover each standby lags for a moment, and the old primary is fenced until it is down.
                after = {Role.LEFT_BEHIND: REMINDER_INTERVAL, Role.FENCED: self._settling}.get(state.role, 0.0)
                if state.role is Role.FENCED and state.name in not_promotable:
                    why = _PROMOTED
                what = f"{state.name} is not used: {why}"
                self.note_problem(state.name, "role", what, level=logging.ERROR, after=after)

    def log_start(
        self,
        snapshot: Snapshot,
        observed: collections.abc.Mapping[str, Observation],
        *,
        declared: str,
        elsewhere: collections.abc.Container[str],
    ) -> None:
        """Log the roles of the servers at the start, and those that differ from the settings.

        Args:
            snapshot: the state of the servers.
            observed: the answers.
            declared: the name of the declared primary.
            elsewhere: the names of servers with another address than the primary; in development one server may be
                both.

        """
        lines = [_described(state.name, snapshot, observed) for state in snapshot.servers.values()]
        logger.info("The servers at the start: %s.", "; ".join(lines))
        role = snapshot.servers[declared].role
        if role in (Role.STANDBY, Role.LEFT_BEHIND):
            if snapshot.primary is None:
                logger.error(
                    "%s is declared as the primary and is a standby, and its primary is not in the settings: writes "
                    "fail. Declare the real primary.",
                    declared,
                )
            else:
                logger.warning(
                    "%s is declared as the primary and is a standby; the primary is %s, so writes go there. Correct "
                    "the settings.",
                    declared,
                    snapshot.primary,
                )
        for state in snapshot.servers.values():
            if state.role is Role.ALIAS and state.name in elsewhere:
                logger.warning(
                    "%s is declared as a replica and is the primary itself, by another name: reads there do not "
                    "relieve it.",
                    state.name,
                )


def _described(name: str, snapshot: Snapshot, observed: collections.abc.Mapping[str, Observation]) -> str:
    state, seen = snapshot.servers[name], observed.get(name)
    if seen is None:
        return f"{name} does not answer"
    version = f", PostgreSQL {seen.version}" if seen.version else ""
    lag = "" if state.role is not Role.STANDBY else ", lag unknown"
    if state.lag_seconds is not None:
        lag = f", {state.lag_seconds:.1f} s behind"
    return f"{name} is {state.role.value}{version}{lag}"

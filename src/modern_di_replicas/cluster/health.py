"""Whether a server is up, from the failures of sessions and the probes of the monitor."""

import collections.abc
import threading
import time
import typing

from modern_di_replicas.cluster.failures import Failure, note_failure
from modern_di_replicas.cluster.pools.open_connections import OpenConnections
from modern_di_replicas.observability.emission import Hooks
from modern_di_replicas.observability.events import Ejected, Returned


FIRST_EJECTION: typing.Final = 1.0
LONGEST_EJECTION: typing.Final = 30.0
"""Seconds for which a server is ejected after its first failure, and at most; doubled at each failure in a row."""

SUCCESSES_NEEDED: typing.Final = 2
"""How many probes in a row have to succeed before a server that was down is used again."""


class Health:
    """The health of one server.

    Passive checks: a failure in a session ejects the server for a while, longer each time. Active checks: a probe that
    fails declares it down, and two that succeed bring it back, whatever sessions report.

    Args:
        connections: the open connections to the server.
        clock: a monotonic clock, in seconds.
        server: the name of the server.
        hooks: receive an event when it is ejected, and when it is back.

    """

    def __init__(
        self,
        connections: OpenConnections,
        *,
        clock: collections.abc.Callable[[], float] = time.monotonic,
        server: str = "",
        hooks: Hooks | None = None,
    ) -> None:
        self._connections = connections
        self._clock = clock
        self._server = server
        self._hooks = hooks
        self.forget()

    def forget(self) -> None:
        """Reset the state, at first and in a forked process."""
        self._is_watched = False
        # In a synchronous application sessions fail in many threads at once; hooks may call this object again.
        self._lock = threading.RLock()
        self._ejection = 0.0
        self._ejected_until = 0.0
        self._declared_down = False
        self._successes = SUCCESSES_NEEDED
        self._is_ejected = False
        """Whether the last event was an ejection."""

    def check(self) -> None:
        """Check that probes have not declared the server down, so that waiting checkouts fail at once.

        Raises:
            ConnectionRefusedError: the server is down.

        """
        if self._declared_down:
            error = ConnectionRefusedError("the server does not answer the monitor")
            note_failure(error, Failure.DOWN)
            raise error

    @property
    def is_down(self) -> bool:
        """Whether the server is not to be used now."""
        if self._declared_down:
            return True
        if self._ejection > 0.0:
            if self._clock() < self._ejected_until:
                return True
            self._note_return()
        return False

    def _note_ejection(self, by: typing.Literal["session", "probe"]) -> None:
        if self._hooks is not None and not self._is_ejected:
            self._is_ejected = True
            self._hooks.emit(Ejected(server=self._server, by=by))

    def _note_return(self) -> None:
        if self._hooks is not None and self._is_ejected:
            self._is_ejected = False
            self._hooks.emit(Returned(server=self._server))

    def start_watching(self) -> None:
        """Leave timeouts to the probes, which know when our own event loop was late."""
        self._is_watched = True

    def failed(self, error: BaseException | None = None) -> bool:
        """Eject the server, which a session could not reach; return whether that is new.

        Args:
            error: the error of the session. A timeout is ignored while the monitor gets answers: this process may be
                overloaded, and the event loop late.

        """
        now = self._clock()
        if self._is_watched and any(isinstance(one, TimeoutError) for one in _chain(error)):
            return False
        with self._lock:
            if self._declared_down or now < self._ejected_until:
                return False  # of many failures at once, one counts; a server that is down is for the probes
            if now - self._ejected_until > self._ejection:
                self._ejection = 0.0  # it has served well since
            self._successes = 0
            self._ejection = min(self._ejection * 2 or FIRST_EJECTION, LONGEST_EJECTION)
            self._ejected_until = now + self._ejection
            self._note_ejection("session")
        return True

    def declare_down(self) -> None:
        """Stop using the server until probes succeed, and terminate its connections.

        A statement that waits for a frozen host fails at once, and is run again on the primary.
        """
        with self._lock:
            self._successes = 0
            self._declared_down = True
        self._connections.end_silent()
        self._note_ejection("probe")

    def end_silent(self) -> None:
        """Terminate the connections: some are silent, and new ones work."""
        self._connections.end_silent()

    def probe_succeeded(self) -> None:
        """Count a successful probe; enough of them in a row bring the server back."""
        with self._lock:
            self._successes += 1
            if self._successes >= SUCCESSES_NEEDED:
                self._declared_down = False
                self._ejected_until = self._ejection = 0.0
                self._note_return()

    def stop_watching(self) -> None:
        """Forget the results of probes: without probes, nothing would bring the server back."""
        self._is_watched = False
        if self._declared_down:
            self._declared_down = False
            self.failed()


def _chain(error: BaseException | None) -> collections.abc.Iterator[BaseException]:
    """Yield an error, and those it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__

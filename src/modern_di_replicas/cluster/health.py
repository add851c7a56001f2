"""Whether a server is worth trying: what its users have seen of it, and what the monitor has."""

import collections.abc
import time
import typing

from modern_di_replicas.cluster.pools.open_connections import OpenConnections


FIRST_EJECTION: typing.Final = 1.0
LONGEST_EJECTION: typing.Final = 30.0
"""Seconds a server is left alone after its first failure, and at most; doubled at each failure in a row."""

SUCCESSES_NEEDED: typing.Final = 2
"""How many probes in a row have to succeed before a server that was down is used again."""


class Health:
    """What is known of one server's life.

    Passive knowledge: a failure that a session meets ejected the server for a while, longer each time. Active
    knowledge: a probe that fails takes it out, and two that succeed bring it back, whatever sessions have seen.

    Args:
        connections: the open connections to the server.
        clock: seconds that only grow.

    """

    def __init__(
        self, connections: OpenConnections, *, clock: collections.abc.Callable[[], float] = time.monotonic
    ) -> None:
        self._connections = connections
        self._clock = clock
        self._ejection = 0.0
        self._ejectioning_until = 0.0
        self._declared_down = False
        self._successes = SUCCESSES_NEEDED

    def check(self) -> None:
        """Check that probes have not declared the server down, so that waiting checkouts fail at once.

        Raises:
            ConnectionRefusedError: they have.

        """
        if self._declared_down:
            msg = "the server does not answer the monitor"
            raise ConnectionRefusedError(msg)

    @property
    def is_down(self) -> bool:
        """Whether the server is to be left alone now."""
        return self._declared_down or (self._ejection > 0.0 and self._clock() < self._ejectioning_until)

    def failed(self) -> bool:
        """Rest the server: a session could not reach it, or was thrown out. Return whether that is news."""
        now = self._clock()
        if self._declared_down or now < self._ejectioning_until:
            return False  # of many who fail at once, one counts; and of a server that is out, probes alone tell
        if now - self._ejectioning_until > self._ejection:
            self._ejection = 0.0  # it has served well since
        self._successes = 0
        self._ejection = min(self._ejection * 2 or FIRST_EJECTION, LONGEST_EJECTION)
        self._ejectioning_until = now + self._ejection
        return True

    def declare_down(self) -> None:
        """Take the server out until probes succeed, and terminate its connections.

        A statement that waits for a frozen host fails now, and is run again on the primary.
        """
        self._successes = 0
        self._declared_down = True
        self._connections.terminate()

    def probe_succeeded(self) -> None:
        """Count a probe that was answered; enough of them in a row bring the server back."""
        self._successes += 1
        if self._successes >= SUCCESSES_NEEDED:
            self._declared_down = False
            self._ejectioning_until = self._ejection = 0.0

    def stop_watching(self) -> None:
        """Forget what probes have seen: without probes, nothing would bring the server back."""
        if self._declared_down:
            self._declared_down = False
            self.failed()

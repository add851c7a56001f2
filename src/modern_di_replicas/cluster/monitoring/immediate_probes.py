"""Ask servers now, between their regular probes: for a position that a read waits for."""

import abc
import asyncio
import math
import time

from modern_di_replicas.cluster.monitoring.answers import Answers
from modern_di_replicas.cluster.topology import Topology
from modern_di_replicas.routing.snapshot import Observation
from modern_di_replicas.settings import ReplicationSettings


class ImmediateProbes(Answers, abc.ABC):
    """Asks a server at once; those who ask at the same time share the answer.

    Args:
        topology: knows the servers, and receives each snapshot.
        settings: how often and how long servers are asked.
        is_async: whether the application is asynchronous.

    """

    def __init__(self, topology: Topology, settings: ReplicationSettings, *, is_async: bool) -> None:
        super().__init__(topology, settings, is_async=is_async)
        self._immediate_probes: dict[str, asyncio.Task[None]] = {}
        self._asked_primary_at = -math.inf

    @property
    def timeout(self) -> float:
        """Timeout in seconds for a server's answer."""
        return self._settings.probe_timeout

    def probe_now(self, name: str) -> asyncio.Task[None]:
        """Ask one server for its position now; concurrent callers share the answer."""
        probe = self._immediate_probes.get(name)
        if probe is None or probe.done():
            probe = self._immediate_probes[name] = asyncio.create_task(self._probe_now(name))
        return probe

    async def _probe_now(self, name: str) -> None:
        try:
            seen = await self._probes[name].ask(briefly=True)
        except Exception:  # noqa: BLE001  # what that means is for the regular probe to say
            return
        known = self._observed.get(name)
        if known is None:
            return  # it is down, and regular probes bring it back
        self._observed[name] = seen
        with self._errors_logged(name):
            self._apply(name, seen, known)
        self._note_answer(name)

    def _apply(self, name: str, seen: Observation, known: Observation) -> None:
        if (seen.in_recovery, seen.timeline, seen.system) != (known.in_recovery, known.timeline, known.system):
            self._conclude()
        elif name == self._primary:
            if self._topology.positions.has_gone_back(seen):
                self._conclude()
            else:
                self._topology.positions.follow(seen)
        elif name in self._topology.positions.reached and seen.in_recovery:
            self._topology.positions.note_standby(name, seen)

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

    def _probe_all_now(self) -> None:
        """Probe every server now: there is a new primary, and the state of the others is out of date."""
        for name in self._probes:
            self.probe_now(name)

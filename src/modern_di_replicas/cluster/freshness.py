"""Reads for which not every replica is fresh enough: ask the replicas again, and wait for them to catch up."""

import asyncio
import collections.abc
import dataclasses
import time
import typing

from modern_di_replicas.cluster.server import Server
from modern_di_replicas.cluster.topology import Topology, Watcher
from modern_di_replicas.consistency.token import ConsistencyToken
from modern_di_replicas.drivers.driver import Row
from modern_di_replicas.routing.positions import Freshness


SHORTEST_PAUSE: typing.Final = 0.001
"""The shortest pause in seconds between two queries to a server that has not caught up."""

PAUSE_DIVISOR: typing.Final = 20
"""A pause is the time waited so far divided by this: a long wait asks less and less often."""

CHOSEN_TIMEOUT: typing.Final = 0.005
"""Timeout in seconds for the answer of the chosen replica, before the others are asked as well."""

FIRST_ANSWERS_TIMEOUT: typing.Final = 0.2
"""Timeout in seconds for the first answer of the servers, however short the wait after it is."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class FreshRead:
    """A read that not every replica is fresh enough for."""

    topology: Topology
    freshness: Freshness
    """The token that it has to include."""
    group: str | None
    """The group the replica has to belong to."""
    affinity: str | None
    """The same key gets the same replica, as long as that one serves."""
    wait: float
    """Seconds for which it continues to ask if the first answers are not enough."""
    has_time: bool = False
    """Whether it waits for a replica instead of using the primary, even if none serves at the moment."""
    endpoint: str = ""
    """The handler it is for, as `module.name`."""
    at_least: float = 0.0
    """The minimum position of a replica, in bytes of WAL."""
    without: frozenset[str] = frozenset()
    """The names of replicas on which it has failed."""

    @property
    def required(self) -> float | None:
        """The position that a replica must have reached; None while it is not known."""
        lsn = self.topology.positions.required(self.freshness, now=time.monotonic())
        return None if lsn is None else max(lsn, self.at_least)

    def choose_server(self) -> Server | None:
        """Return a replica that is known to be fresh enough now."""
        positions, epoch = self.topology.positions, self.topology.positions.epoch
        lsn = self.required
        if lsn is None:
            return None
        server = self.topology.choose_server(self.group, affinity=self.affinity, lsn=lsn, without=self.without)
        # Otherwise another thread has recorded a promotion meanwhile: positions of different timelines may be compared.
        return server if positions.epoch == epoch and not epoch % 2 else None

    def is_satisfied_by(self, row: Row) -> bool:
        """Return whether a server that has answered `about_server` is fresh enough."""
        required = self.required
        return required is not None and row["timeline"] == self.topology.positions.timeline and row["lsn"] >= required


async def catch_up(read: FreshRead, *, first: str) -> Server | None:
    """Return a replica as soon as one is fresh enough; None when none is in time.

    Args:
        read: the read for which it must be fresh enough.
        first: the name of the replica that is asked first. It usually has caught up by then, and asking all replicas
            each time would cost more than the read.

    """
    topology = read.topology
    if topology.watcher is not None and read.required is not None:
        await _answers(topology.watcher, [first], seconds=CHOSEN_TIMEOUT)
        if (server := read.choose_server()) is not None:
            return server
    began = time.monotonic()
    deadline = began + (max(FIRST_ANSWERS_TIMEOUT, read.wait) if read.has_time else FIRST_ANSWERS_TIMEOUT)
    has_asked = False
    while (watcher := topology.watcher) is not None and (left := deadline - time.monotonic()) > 0:
        asked = [server.name for server in topology.serving(read.group)]
        if read.required is None or (read.has_time and not asked):
            # Only the primary knows its latest position, or that another server is the primary now. And only the answer
            # of a replica that was too far behind shows that it no longer is.
            asked = [server.name for server in topology.servers if not server.health.is_down]
        answered = await _answers(watcher, asked, seconds=left, return_when=asyncio.FIRST_COMPLETED)
        if (server := read.choose_server()) is not None:
            return server
        if answered and not has_asked:
            has_asked, deadline = True, (began if read.has_time else time.monotonic()) + read.wait
        await asyncio.sleep(max(SHORTEST_PAUSE, (time.monotonic() - began) / PAUSE_DIVISOR))
    return None


async def is_written(topology: Topology, token: ConsistencyToken, *, wait: float) -> bool:
    """Return whether the primary has reached a token of unknown origin.

    The replicas are asked first: the primary has written all that they have received. The primary is asked only if that
    is not enough, and once in a probe interval; calls in between wait for the next answer. While it does not answer,
    the token is accepted.

    Args:
        topology: the servers.
        token: a token that a client has sent.
        wait: timeout in seconds for the replicas' answers.

    """
    watcher = topology.watcher
    if watcher is None or topology.has_written(token):
        return True
    arrived = time.monotonic()
    if token.timeline > topology.positions.timeline:
        # A promotion, or a forged token: wait for as long as a server may take to answer.
        wait = max(wait, watcher.timeout)
    await _answers(
        watcher, (server.name for server in topology.servers if server.name != topology.leader), seconds=wait
    )
    while not topology.has_written(token):
        if topology.leader is None or not await watcher.primary_answers():
            return True
        if (topology.positions.answered_at or 0.0) >= arrived:  # otherwise it was asked before the token arrived
            return topology.has_written(token)
    return True


async def _answers(
    watcher: Watcher, names: collections.abc.Iterable[str], *, seconds: float, return_when: str = asyncio.ALL_COMPLETED
) -> bool:
    """Ask servers for their positions; return whether an answer came in time. Late answers are still awaited."""
    looks = [asyncio.ensure_future(watcher.probe_now(name)) for name in names]
    return bool(looks and (await asyncio.wait(looks, timeout=seconds, return_when=return_when))[0])

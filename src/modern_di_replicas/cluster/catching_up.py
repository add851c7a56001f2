"""Reads that ask for more than any replica may have; where none is known to have it, they ask once more, and wait."""

import asyncio
import collections.abc
import dataclasses
import time
import typing

from modern_di_replicas.cluster.fleet import Fleet, Member, Watcher
from modern_di_replicas.lsn import ConsistencyToken
from modern_di_replicas.routing.positions import Freshness


PAUSE: typing.Final = 0.001
"""Seconds between two questions to a server that is not there yet."""

HEAD_START: typing.Final = 0.005
"""Seconds that the replica which was chosen has for its answer, at the most, before the others are asked as well."""

FIRST_ANSWER: typing.Final = 0.2
"""Seconds the servers have for their first answer, at the most, however short the wait after it is."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class FreshRead:
    """A read that not every replica is fresh enough for."""

    fleet: Fleet
    freshness: Freshness
    """What it has to include."""
    group: str | None
    """The group the replica has to belong to."""
    affinity: str | None
    """The same key gets the same replica, as long as that one serves."""
    wait: float
    """How many seconds it goes on asking when the first answers are not enough."""

    @property
    def required(self) -> int | None:
        """How far a replica has to be, as far as is known now; None when that is not known."""
        return self.fleet.positions.required(self.freshness, now=time.monotonic())

    def choose_member(self) -> Member | None:
        """Return a replica that is known to be fresh enough now."""
        lsn = self.required
        return None if lsn is None else self.fleet.choose_member(self.group, affinity=self.affinity, lsn=lsn)


async def catch_up(read: FreshRead, *, first: str) -> Member | None:
    """Return a replica as soon as one is fresh enough; None when none is in time.

    Args:
        read: what it has to be fresh enough for.
        first: the name of the replica that is asked before the others, because it usually has caught up by then: to
            ask all of them every time would cost more than the read does.

    """
    fleet = read.fleet
    if fleet.watcher is not None and read.required is not None:
        await _answers(fleet.watcher, [first], seconds=HEAD_START)
        if (member := read.choose_member()) is not None:
            return member
    deadline = time.monotonic() + FIRST_ANSWER
    has_asked = False
    while (watcher := fleet.watcher) is not None and (left := deadline - time.monotonic()) > 0:
        asked = [member.name for member in fleet.serving(read.group)]
        if read.required is None:
            # Only the primary knows: what it had written a moment ago, or that another is the primary by now.
            asked = [member.name for member in fleet.members if not member.health.is_down]
        answered = await _answers(watcher, asked, seconds=left, return_when=asyncio.FIRST_COMPLETED)
        if (member := read.choose_member()) is not None:
            return member
        if answered and not has_asked:
            has_asked, deadline = True, time.monotonic() + read.wait
        await asyncio.sleep(PAUSE)
    return None


async def is_written(fleet: Fleet, token: ConsistencyToken, *, wait: float) -> bool:
    """Return whether the primary has written what a token of unknown origin says.

    The replicas are asked first: what they have received, the primary has written. It is asked itself only when they
    do not know, and once in a probe interval; whoever comes in between waits for the next answer. While it does not
    answer, nobody can tell, and the token has the benefit of the doubt.

    Args:
        fleet: the servers.
        token: a token that a client has sent.
        wait: how many seconds the replicas have to answer.

    """
    watcher = fleet.watcher
    if watcher is None or fleet.has_written(token):
        return True
    arrived = time.monotonic()
    if token.timeline > fleet.positions.timeline:
        # Somebody was promoted, or somebody is lying: that is worth as long a wait as a server has to answer.
        wait = max(wait, watcher.patience)
    await _answers(watcher, (member.name for member in fleet.members if member.name != fleet.leader), seconds=wait)
    while not fleet.has_written(token):
        if fleet.leader is None or not await watcher.primary_answers():
            return True
        if (fleet.positions.answered_at or 0.0) >= arrived:  # else it was asked before the token was there
            return fleet.has_written(token)
    return True


async def _answers(
    watcher: Watcher, names: collections.abc.Iterable[str], *, seconds: float, return_when: str = asyncio.ALL_COMPLETED
) -> bool:
    """Ask some servers where they are; return whether an answer came in time. Those that are late are not given up."""
    looks = [asyncio.ensure_future(watcher.look(name)) for name in names]
    return bool(looks and (await asyncio.wait(looks, timeout=seconds, return_when=return_when))[0])

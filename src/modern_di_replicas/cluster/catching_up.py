"""What a read does that no replica is known to be fresh enough for: it asks once more, waits a moment, and gives up."""

import asyncio
import collections.abc
import time
import typing

from modern_di_replicas.cluster.fleet import Fleet, Member, Watcher
from modern_di_replicas.lsn import ConsistencyToken
from modern_di_replicas.routing.positions import Freshness


PAUSE: typing.Final = 0.001
"""Seconds between two questions to a server that is not there yet."""

FIRST_ANSWER: typing.Final = 0.2
"""Seconds the servers have for their first answer, at the most, however short the wait after it is."""


async def catch_up(
    fleet: Fleet, freshness: Freshness, *, group: str | None, affinity: str | None, wait: float
) -> Member | None:
    """Return a replica as soon as one is fresh enough; None when none is in time.

    Args:
        fleet: the replicas.
        freshness: what the read has to include.
        group: the group the replica has to belong to.
        affinity: the same key gets the same replica, as long as that one serves.
        wait: how many seconds to go on asking when the first answer is not enough.

    """
    positions = fleet.positions
    deadline = time.monotonic() + FIRST_ANSWER
    has_asked = False
    while (watcher := fleet.watcher) is not None and (left := deadline - time.monotonic()) > 0:
        asked = [member.name for member in fleet.serving(group)]
        if positions.required(freshness, now=time.monotonic()) is None:
            # Only the primary knows: what it had written a moment ago, or that another is the primary by now.
            asked = [member.name for member in fleet.members if not member.health.is_down]
        answered = await _answers(watcher, asked, seconds=left, return_when=asyncio.FIRST_COMPLETED)
        required = positions.required(freshness, now=time.monotonic())
        member = None if required is None else fleet.choose_member(group, affinity=affinity, lsn=required)
        if member is not None:
            return member
        if answered and not has_asked:
            has_asked, deadline = True, time.monotonic() + wait
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

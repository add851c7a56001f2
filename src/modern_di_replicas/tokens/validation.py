"""Validate consistency tokens of clients, also against the position of the primary."""

import asyncio
import collections
import dataclasses
import time
import typing

from modern_di_replicas.cluster.freshness import is_written
from modern_di_replicas.cluster.topology import Topology
from modern_di_replicas.consistency.client import Client
from modern_di_replicas.consistency.serializer import Rejection, TokenSerializer
from modern_di_replicas.consistency.token import ConsistencyToken, later
from modern_di_replicas.consistency.wal import LAST_LSN
from modern_di_replicas.observability.events import TokenReceived, TokenSent
from modern_di_replicas.observability.hook import Event
from modern_di_replicas.settings import ReplicationSettings


MAX_TEXTS: typing.Final = 4
"""The limit of different tokens in a request; with more, all of them are ignored."""


class Tokens:
    """Serializes tokens, and validates the ones that clients send.

    An invalid token is ignored: the request is served as if it had none, and `rejected` counts it.

    Args:
        settings: the secret, and how long a token is valid.
        topology: the servers, whose positions are known.

    """

    def __init__(self, settings: ReplicationSettings, topology: Topology | None = None) -> None:
        self.rejected: collections.Counter[Rejection] = collections.Counter()
        """The number of ignored tokens, by reason."""
        self.too_late: int = 0
        """The number of requests that wrote after their response had begun, so that the client got no token."""
        self._topology = topology
        self._serializer = TokenSerializer(settings)
        self._wait = settings.catch_up_wait

    def encode(self, token: ConsistencyToken) -> str:
        """Return the text of a token for a response, signed if there is a secret."""
        return self._serializer.dumps(token)

    def decode(self, text: str, *, expires: bool = True) -> ConsistencyToken | None:
        """Return the token of a text from a request; None when it is rejected, which is counted.

        This does not check whether the primary has reached its position: see `admit`.

        Args:
            text: the text.
            expires: whether its age is checked; not for a message, which may wait in a queue for days.

        """
        token = self._serializer.loads(text, expires=expires)
        if isinstance(token, ConsistencyToken):
            database = None if self._topology is None else self._topology.positions.database
            if database in (None, token.database):
                return token
            self._reject("foreign")
        else:
            self._reject(token)
        return None

    async def admit(self, texts: list[str]) -> ConsistencyToken | None:
        """Return the token of a request; None when it has no valid one.

        An unsigned token may be invented. It is compared with the position of the primary, so that an invented position
        cannot send a client's reads to the primary forever.

        Args:
            texts: every token text of the request. Of several, such as a cookie of the same name that another subdomain
                has set, the latest valid one is used: the client's own is among them.

        """
        if len(different := set(texts)) > MAX_TEXTS:
            self._reject("duplicated")
            return None
        latest: ConsistencyToken | None = None
        for text in different:
            token = self.decode(text)
            if token is not None and self._topology is not None:
                token = await self._validate(token, self._topology)
            if token is not None:
                latest = later(latest, token)
        if latest is not None:
            self._emit(TokenReceived(outcome="accepted"))
        return latest

    @property
    def asks_servers(self) -> bool:
        """Whether `admit` may have to ask the servers for their positions; otherwise it awaits nothing."""
        return not self._serializer.is_signed and self._topology is not None

    def _reject(self, reason: Rejection) -> None:
        self.rejected[reason] += 1
        self._emit(TokenReceived(outcome=reason))

    def note_sent(self) -> None:
        """Record that a response carries a token."""
        self._emit(TokenSent(outcome="sent"))

    def note_too_late(self) -> None:
        """Record that a request wrote after its response had begun, so that its client gets no token."""
        self.too_late += 1
        self._emit(TokenSent(outcome="too_late"))

    def _emit(self, event: Event) -> None:
        if self._topology is not None and self._topology.hooks is not None:
            self._topology.hooks.emit(event)

    async def _validate(self, token: ConsistencyToken, topology: Topology) -> ConsistencyToken | None:
        if (
            self._serializer.is_signed
            or topology.has_written(token)
            or await is_written(topology, token, wait=self._wait)
        ):
            return token
        if token.lsn == LAST_LSN and token.timeline == topology.positions.timeline:
            # It has the highest position, because the primary did not answer when it was made. Now it has answered.
            return dataclasses.replace(token, lsn=topology.positions.written)
        self._reject("ahead")
        return None

    async def of(self, client: Client) -> ConsistencyToken | None:
        """Return the token for a client that has written; None when no monitor runs.

        It is the token of the last write of this process, which includes the client's: so of two responses to one
        client, the later one has the later token. If the position is unknown, because a commit may still be running or
        the primary does not answer, the token has the highest position of this timeline: until another timeline begins,
        or the token expires, only the primary can serve it.
        """
        if client.is_in_doubt:
            return self.everything() or await self.now()
        if client.position_unknown:
            return await self.now() or self.everything()
        latest = None if self._topology is None else self._topology.own_write
        return (
            latest
            if latest is not None and client.token is not None and latest.is_after(client.token)
            else client.token
        )

    async def now(self) -> ConsistencyToken | None:
        """Return a token of the primary's current position; None when it does not answer."""
        topology = self._topology
        if topology is None or topology.watcher is None or topology.leader is None:
            return None
        began, positions = time.monotonic(), topology.positions
        for _ in range(2):  # the first answer may be to an earlier query
            # Other requests share the probe, and a cancellation is for this one alone.
            await asyncio.wait({asyncio.ensure_future(topology.watcher.probe_now(topology.leader))})
            if positions.database is not None and (positions.answered_at or 0.0) >= began:
                return ConsistencyToken(
                    lsn=positions.written,
                    timeline=positions.timeline,
                    database=positions.database,
                    issued_at=int(time.time()),
                )
        return None

    def everything(self) -> ConsistencyToken | None:
        """Return a token with the highest position of this timeline, which only the primary has; None if unknown."""
        positions = None if self._topology is None else self._topology.positions
        if positions is None or positions.database is None:
            return None
        return ConsistencyToken(
            lsn=LAST_LSN, timeline=positions.timeline, database=positions.database, issued_at=int(time.time())
        )

"""Validate consistency tokens of clients against what the primary has written."""

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


MOST_TEXTS: typing.Final = 4
"""How many different tokens a request may carry; with more, none of them counts."""


class Tokens:
    """Serializes tokens, and validates the ones that clients send.

    A token that is not believed is ignored: the request is served as if it had none, and `rejected` counts it.

    Args:
        settings: the secret, and how long a token counts.
        topology: the servers, which know what was written.

    """

    def __init__(self, settings: ReplicationSettings, topology: Topology | None = None) -> None:
        self.rejected: collections.Counter[Rejection] = collections.Counter()
        """How many tokens of clients were ignored, by reason."""
        self.too_late: int = 0
        """How many requests wrote after their response had begun, so that their client got no token of it."""
        self._topology = topology
        self._serializer = TokenSerializer(settings)
        self._wait = settings.catch_up_wait

    def encode(self, token: ConsistencyToken) -> str:
        """Return the text of a token, signed if there is a secret: as a response carries it."""
        return self._serializer.dumps(token)

    def decode(self, text: str, *, expires: bool = True) -> ConsistencyToken | None:
        """Return the token of a text as a request carries it; None when it is rejected, which is counted.

        Whether the primary has really written what it says is another question: see `admit`.

        Args:
            text: the text.
            expires: whether its age counts: not that of a message, which may wait in a queue for days.

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
        """Return the token a request carries; None when it has none, or none that is believed.

        An unsigned token may have been made up. It is held against what the primary has really written, so that
        a made-up position cannot send a client's reads to the primary for ever.

        Args:
            texts: every text the request carries. Of several, such as a cookie of the same name that another subdomain
                has set, those that are believed count, and the latest of them: the client's own is among them.

        """
        if len(different := set(texts)) > MOST_TEXTS:
            self._reject("duplicated")
            return None
        latest: ConsistencyToken | None = None
        for text in different:
            token = self.decode(text)
            if token is not None and self._topology is not None:
                token = await self._judge(token, self._topology)
            if token is not None:
                latest = later(latest, token)
        if latest is not None:
            self._tell(TokenReceived(outcome="accepted"))
        return latest

    @property
    def asks_servers(self) -> bool:
        """Whether `admit` may have to ask the servers what was written; otherwise it awaits nothing."""
        return not self._serializer.is_signed and self._topology is not None

    def _reject(self, reason: Rejection) -> None:
        self.rejected[reason] += 1
        self._tell(TokenReceived(outcome=reason))

    def note_sent(self) -> None:
        """Note that a response carries a token."""
        self._tell(TokenSent(outcome="sent"))

    def note_too_late(self) -> None:
        """Note that a request wrote after its response had begun, so that its client gets no token of it."""
        self.too_late += 1
        self._tell(TokenSent(outcome="too_late"))

    def _tell(self, event: Event) -> None:
        if self._topology is not None and self._topology.hooks is not None:
            self._topology.hooks.emit(event)

    async def _judge(self, token: ConsistencyToken, topology: Topology) -> ConsistencyToken | None:
        if (
            self._serializer.is_signed
            or topology.has_written(token)
            or await is_written(topology, token, wait=self._wait)
        ):
            return token
        if token.lsn == LAST_LSN and token.timeline == topology.positions.timeline:
            # It asks for all that will ever be, because the primary could not say how far it was. Now it just has.
            return dataclasses.replace(token, lsn=topology.positions.written)
        self._reject("ahead")
        return None

    async def of(self, client: Client) -> ConsistencyToken | None:
        """Return the token for a client that has written; None when no monitor runs.

        It is that of the last write of this process, which includes the client's: of two responses to one client,
        whichever comes last then has the later token. When the position cannot be known, because a commit may still
        be under way or the primary does not answer, the token asks for all that will ever be on this timeline: until
        another one begins, or the token ends, only the primary has that.
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
        """Return a token of everything the primary has written until now; None when it does not answer."""
        topology = self._topology
        if topology is None or topology.watcher is None or topology.leader is None:
            return None
        began, positions = time.monotonic(), topology.positions
        for _ in range(2):  # the first answer may be to a question that was asked before
            await topology.watcher.probe_now(topology.leader)
            if positions.database is not None and (positions.answered_at or 0.0) >= began:
                return ConsistencyToken(
                    lsn=positions.written,
                    timeline=positions.timeline,
                    database=positions.database,
                    issued_at=int(time.time()),
                )
        return None

    def everything(self) -> ConsistencyToken | None:
        """Return a token of all that will ever be on this timeline: only the primary has that; None when not known."""
        positions = None if self._topology is None else self._topology.positions
        if positions is None or positions.database is None:
            return None
        return ConsistencyToken(
            lsn=LAST_LSN, timeline=positions.timeline, database=positions.database, issued_at=int(time.time())
        )

"""The tokens of clients: made into text that may leave the house, and believed only as far as they are true."""

import collections
import dataclasses
import hashlib
import hmac
import time
import typing

import itsdangerous

from modern_di_replicas.client import Client
from modern_di_replicas.cluster.catching_up import is_written
from modern_di_replicas.cluster.fleet import Fleet
from modern_di_replicas.cluster.replica_engine import ReplicaEngine
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.lsn import LAST_LSN, LONGEST_TEXT, ConsistencyToken
from modern_di_replicas.settings import ReplicationSettings


LONGEST_SIGNATURE: typing.Final = 44
"""Characters a signature adds at the most: a point, and 256 bits in base 64."""

REMEMBERED: typing.Final = 4096
"""How many texts are not read again when they come again."""

_SALT: typing.Final = b"modern-di-replicas.consistency-token"

Rejection = typing.Literal["ahead", "duplicated", "expired", "foreign", "forged", "malformed", "oversized"]


class Tokens:
    """Makes tokens into text, and judges the texts that clients send.

    A token that is not believed is ignored: the request is served as if it had none, and `rejected` counts it.

    Args:
        settings: the secret, and how long a token counts.
        fleet: the servers, which know what was written.

    """

    def __init__(self, settings: ReplicationSettings, fleet: Fleet | None = None) -> None:
        self.rejected: collections.Counter[Rejection] = collections.Counter()
        """How many tokens of clients were ignored, by reason."""
        self.too_late: int = 0
        """How many requests wrote after their response had begun, so that their client got no token of it."""
        self._seconds = settings.token_seconds
        self._wait = settings.catch_up_wait
        self._fleet = fleet
        self._signers = [
            itsdangerous.Signer(secret, salt=_SALT, key_derivation="hmac", digest_method=hashlib.sha256)
            for secret in settings.token_secrets
        ]
        self._remembered: dict[str, ConsistencyToken | Rejection] = {}

    def encode(self, token: ConsistencyToken) -> str:
        """Return the text of a token, signed if there is a secret: as a response carries it."""
        text = self._signers[-1].sign(str(token)).decode() if self._signers else str(token)
        self._remember(text, token)
        return text

    def decode(self, text: str) -> ConsistencyToken | None:
        """Return the token of a text as a request carries it; None when it is not believed, and why is counted.

        Whether the primary has really written what it says is another question: see `admit`.
        """
        token = self._parse(text)
        if isinstance(token, ConsistencyToken):
            return token
        self.rejected[token] += 1
        return None

    def _parse(self, text: str) -> ConsistencyToken | Rejection:
        if len(text) > LONGEST_TEXT + LONGEST_SIGNATURE:
            return "oversized"
        token = self._read(text)
        if not isinstance(token, ConsistencyToken):
            return token
        if not -self._seconds <= time.time() - token.issued_at <= self._seconds:  # clocks of hosts differ, both ways
            return "expired"
        database = None if self._fleet is None else self._fleet.positions.database
        return token if database in (None, token.database) else "foreign"

    def _read(self, text: str) -> ConsistencyToken | Rejection:
        # A client sends the text it was given here with each request, until it writes again.
        return self._remembered.get(text) or self._remember(text, self._read_once(text))

    def _remember(self, text: str, read: ConsistencyToken | Rejection) -> ConsistencyToken | Rejection:
        if len(self._remembered) >= REMEMBERED:
            del self._remembered[next(iter(self._remembered))]  # the oldest
        self._remembered[text] = read
        return read

    def _read_once(self, text: str) -> ConsistencyToken | Rejection:
        if self._signers:
            signed, text = text.encode(), text.rpartition(".")[0]
            # Signed anew and compared as a whole: of the texts that decode to one signature, one is accepted.
            if not any(hmac.compare_digest(signer.sign(text), signed) for signer in self._signers):
                return "forged"
        try:
            return ConsistencyToken.parse(text)
        except ConfigurationError:
            return "malformed"

    async def admit(self, texts: list[str]) -> ConsistencyToken | None:
        """Return the token a request carries; None when it has none, or none that is believed.

        An unsigned token may have been made up. It is held against what the primary has really written, so that
        nobody can ask for what will never be, and have the primary read all the same.

        Args:
            texts: every text the request carries; of several, nobody can tell which one counts.

        """
        if not texts:
            return None
        if len(texts) > 1:
            self.rejected["duplicated"] += 1
            return None
        token = self.decode(texts[0])
        return token if token is None or self._fleet is None else await self._judge(token, self._fleet)

    async def _judge(self, token: ConsistencyToken, fleet: Fleet) -> ConsistencyToken | None:
        if self._signers or fleet.has_written(token) or await is_written(fleet, token, wait=self._wait):
            return token
        if token.lsn == LAST_LSN and token.timeline == fleet.positions.timeline:
            # It asks for all that will ever be, because the primary could not say how far it was. Now it just has.
            return dataclasses.replace(token, lsn=fleet.positions.written)
        self.rejected["ahead"] += 1
        return None

    async def of(self, client: Client) -> ConsistencyToken | None:
        """Return the token for a client that has written; None when nobody watches the servers.

        It is that of the last write of this process, which includes the client's: of two responses to one client,
        whichever comes last then has the later token. When nobody can say how far the primary is, because it died
        right after the commit, the token asks for all that will ever be on this timeline: until another one begins,
        or the token ends, only the primary has that.
        """
        if client.is_unsure:
            return await self.now() or self._everything()
        latest = None if self._fleet is None else self._fleet.own_write
        if latest is not None and client.token is not None and latest.timeline == client.token.timeline:
            return max(latest, client.token, key=lambda token: token.lsn)
        return client.token

    async def now(self) -> ConsistencyToken | None:
        """Return a token of everything the primary has written until now; None when it does not answer."""
        fleet = self._fleet
        if fleet is None or fleet.watcher is None or fleet.leader is None:
            return None
        began, positions = time.monotonic(), fleet.positions
        for _ in range(2):  # the first answer may be to a question that was asked before
            await fleet.watcher.look(fleet.leader)
            if positions.database is not None and (positions.answered_at or 0.0) >= began:
                return ConsistencyToken(
                    lsn=positions.written,
                    timeline=positions.timeline,
                    database=positions.database,
                    issued_at=int(time.time()),
                )
        return None

    def _everything(self) -> ConsistencyToken | None:
        positions = None if self._fleet is None else self._fleet.positions
        if positions is None or positions.database is None:
            return None
        return ConsistencyToken(
            lsn=LAST_LSN, timeline=positions.timeline, database=positions.database, issued_at=int(time.time())
        )


def create_tokens(settings: ReplicationSettings, replica: ReplicaEngine) -> Tokens:
    """Return what judges the tokens of an application's clients."""
    return Tokens(settings, replica.fleet if isinstance(replica, ReplicaEngine) else None)

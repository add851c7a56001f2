"""Serialize, sign and read consistency tokens as clients carry them."""

import hashlib
import hmac
import time
import typing

import itsdangerous

from modern_di_replicas.consistency.token import LONGEST_TEXT, ConsistencyToken
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.settings import ReplicationSettings


LONGEST_SIGNATURE: typing.Final = 44
"""Maximum length of a signature: a separator and 256 bits in base 64."""

CACHED: typing.Final = 4096
"""The number of cached texts, so that a repeated text is not verified again."""

_SALT: typing.Final = b"modern-di-replicas.consistency-token"

Rejection = typing.Literal["ahead", "duplicated", "expired", "foreign", "forged", "malformed", "oversized"]
"""Why a client's token was ignored."""


class TokenSerializer:
    """Serializes tokens, signed if the settings have a secret.

    Args:
        settings: the secrets, and how long a token is valid.

    """

    def __init__(self, settings: ReplicationSettings) -> None:
        self.is_signed = bool(settings.token_secrets)
        """Whether accepted texts are known to come from this application."""
        self._seconds = settings.token_seconds
        self._signers = [
            itsdangerous.Signer(secret, salt=_SALT, key_derivation="hmac", digest_method=hashlib.sha256)
            for secret in settings.token_secrets
        ]
        self._cache: dict[str, ConsistencyToken | Rejection] = {}

    def dumps(self, token: ConsistencyToken) -> str:
        """Return the text of a token."""
        text = self._signers[-1].sign(str(token)).decode() if self._signers else str(token)
        self._remember(text, token)
        return text

    def loads(self, text: str, *, expires: bool = True) -> ConsistencyToken | Rejection:
        """Return the token of a text, or the reason why it is not accepted.

        Args:
            text: the text from a client.
            expires: whether its age is checked.

        """
        if len(text) > LONGEST_TEXT + LONGEST_SIGNATURE:
            return "oversized"
        # A client sends its text with each request, until it writes again.
        token = self._cache.get(text) or self._remember(text, self._verify(text))
        if not isinstance(token, ConsistencyToken):
            return token
        if not expires:
            return token
        is_current = -self._seconds <= time.time() - token.issued_at <= self._seconds  # the clocks of hosts differ
        return token if is_current else "expired"

    def _remember(self, text: str, token: ConsistencyToken | Rejection) -> ConsistencyToken | Rejection:
        if len(self._cache) >= CACHED:
            del self._cache[next(iter(self._cache))]  # the oldest
        self._cache[text] = token
        return token

    def _verify(self, text: str) -> ConsistencyToken | Rejection:
        if self._signers:
            signed, text = text.encode(), text.rpartition(".")[0]
            # Signed again and compared as a whole: several texts decode to one signature, and only one is accepted.
            if not any(hmac.compare_digest(signer.sign(text), signed) for signer in self._signers):
                return "forged"
        try:
            return ConsistencyToken.parse(text)
        except ConfigurationError:
            return "malformed"

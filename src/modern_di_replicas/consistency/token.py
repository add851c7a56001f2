"""The consistency token: carries a position in the write-ahead log from a write to a later read."""

import dataclasses
import functools
import hashlib
import re
import typing

from modern_di_replicas.errors import ConfigurationError


LONGEST_TEXT: typing.Final = 80
"""Maximum length of a token's text."""

_TEXT: typing.Final = re.compile(r"1\.([0-9a-f]{16})\.([0-9a-f]{1,8})\.([0-9a-f]{1,16})\.([0-9a-f]{1,10})", re.ASCII)


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class ConsistencyToken:
    """A position that a read has to include: everything the primary had written when the token was made.

    It can be sent in a cookie, a header or the arguments of a background job. `str(token)` is its text, and
    `ConsistencyToken.parse` parses it.
    """

    lsn: int
    """The position in the write-ahead log that a server must have reached, in bytes."""
    timeline: int
    """Its PostgreSQL timeline; each promotion begins a new one."""
    database: str
    """Its database, as named by `identify`."""
    issued_at: int
    """When it was made, in seconds since 1970, by the clock of that host."""

    def __str__(self) -> str:
        return f"1.{self.database}.{self.timeline:x}.{self.lsn:x}.{self.issued_at:x}"

    def is_after(self, other: "ConsistencyToken") -> bool:
        """Return whether it includes another token; only tokens of one database and timeline are comparable."""
        return (self.database, self.timeline) == (other.database, other.timeline) and self.lsn >= other.lsn

    @classmethod
    def parse(cls, text: str) -> typing.Self:
        """Return the token of a text.

        Raises:
            ConfigurationError: it is not the text of a token.

        """
        found = _TEXT.fullmatch(text) if isinstance(text, str) else None
        if found is not None:
            timeline, lsn, issued_at = (int(number, 16) for number in found.groups()[1:])
            token = cls(lsn=lsn, timeline=timeline, database=found[1], issued_at=issued_at)
            if str(token) == text:  # each token has one text
                return token
        raise ConfigurationError(
            field="token",
            value=text[:LONGEST_TEXT] if isinstance(text, str) else text,
            remedy="pass the text of a ConsistencyToken, as str() returns it",
        )


def later(known: ConsistencyToken | None, new: ConsistencyToken) -> ConsistencyToken:
    """Return the later of two positions; a new one of another database replaces the known one."""
    if known is None or known.database != new.database or (known.timeline, known.lsn) <= (new.timeline, new.lsn):
        return new
    return known


@functools.lru_cache(maxsize=64)
def identify(system: int, database: str) -> str:
    """Return an opaque name for a database, which is the same on the primary and every replica.

    Args:
        system: the identifier of the PostgreSQL cluster.
        database: the name of the database in it.

    """
    return hashlib.blake2b(f"{system}/{database}".encode(), digest_size=8).hexdigest()

"""The servers and connections of the contenders: the same for all."""

import dataclasses
import typing


READING_CONNECTIONS: typing.Final = 20
"""Connections for reads, over all the servers a contender reads from."""

WRITING_CONNECTIONS: typing.Final = 10
"""Connections to the primary: as many as to each replica, because some know only one size for all servers."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Servers:
    """The SQLAlchemy URLs of one cluster."""

    primary: str
    replicas: tuple[str, ...]

    @property
    def reading_connections(self) -> int:
        """Return the number of connections to each replica, for contenders that use all of them."""
        return READING_CONNECTIONS // len(self.replicas)


def dsn(url: str) -> str:
    """Return the address in asyncpg's format."""
    return url.replace("+asyncpg", "", 1)

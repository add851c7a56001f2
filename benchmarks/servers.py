"""What every contender is given, so that all of them have the same: the servers, and how many connections."""

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
        """How many connections to each replica, for those who use all of them."""
        return READING_CONNECTIONS // len(self.replicas)


def dsn(url: str) -> str:
    """Return the address as asyncpg wants it."""
    return url.replace("+asyncpg", "", 1)

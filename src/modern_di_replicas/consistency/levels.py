"""Consistency levels: how fresh a read has to be."""

import dataclasses
import datetime as dt
import enum
import typing

from modern_di_replicas.errors import ConfigurationError


class Level(enum.Enum):
    """The levels without a parameter."""

    EVENTUAL = "eventual"
    SESSION = "session"
    STRONG = "strong"

    def __repr__(self) -> str:
        return self.name


EVENTUAL: typing.Final = Level.EVENTUAL
"""The state of any healthy replica, at most `max_lag` old."""
SESSION: typing.Final = Level.SESSION
"""A client sees its own writes; the writes of others may be missing for at most `max_lag`."""
STRONG: typing.Final = Level.STRONG
"""Everything that is committed: the read uses the primary."""


@dataclasses.dataclass(slots=True, frozen=True)
class Bounded:
    """At most `lag` old, whichever client wrote it.

    Args:
        lag: how old an answer may be; above zero.

    Raises:
        ConfigurationError: `lag` is not a timedelta above zero.

    """

    lag: dt.timedelta

    def __post_init__(self) -> None:
        if not isinstance(self.lag, dt.timedelta) or self.lag <= dt.timedelta(0):
            raise ConfigurationError(
                field="Bounded.lag",
                value=self.lag,
                remedy="pass a timedelta above zero; for no lag at all, read with STRONG",
            )


Consistency = Level | Bounded


def check_consistency(field: str, value: object) -> None:
    """Check that a value is a level.

    Raises:
        ConfigurationError: it is not.

    """
    if not isinstance(value, Consistency):
        raise ConfigurationError(
            field=field, value=value, remedy="choose EVENTUAL, SESSION, Bounded(lag=timedelta(...)) or STRONG"
        )

"""How fresh a read has to be."""

import dataclasses
import datetime as dt
import enum
import typing

from modern_di_replicas.errors import ConfigurationError


class Level(enum.Enum):
    """How fresh a read has to be, where no figure is needed to say so."""

    EVENTUAL = "eventual"
    SESSION = "session"
    STRONG = "strong"

    def __repr__(self) -> str:
        return self.name


EVENTUAL: typing.Final = Level.EVENTUAL
"""Whatever a healthy replica has, at most `max_lag` old."""
SESSION: typing.Final = Level.SESSION
"""A client sees what it has written itself; of what others wrote, at most `max_lag` may be missing."""
STRONG: typing.Final = Level.STRONG
"""Everything that was committed: the primary reads."""


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
                remedy="give a timedelta above zero; for no lag at all, read with STRONG",
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

"""All replicas as one: whose turn is it, and who stands behind them."""

import collections.abc
import dataclasses

from sqlalchemy.ext.asyncio import AsyncEngine

from modern_di_replicas.errors import UnknownGroupError
from modern_di_replicas.routing.balancing import WeightedRoundRobin
from modern_di_replicas.settings import DEFAULT_GROUP


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Member:
    """One replica: its engine, and what balancing needs to know of it."""

    name: str
    engine: AsyncEngine
    weight: int
    groups: collections.abc.Set[str]


class Fleet:
    """The replicas of one application, with the primary behind them.

    Args:
        members: the replicas; may be empty.
        primary: the engine, or in a test the connection, that does what the replicas cannot do.

    """

    def __init__(self, *, members: collections.abc.Sequence[Member], primary: AsyncEngine) -> None:
        self.members = tuple(members)
        self.primary = primary
        self._turns = {
            group: WeightedRoundRobin([member for member in members if group in member.groups])
            for group in sorted({group for member in members for group in member.groups})
        }

    def choose(self, group: str | None = None) -> AsyncEngine:
        """Return the engine of the replica whose turn it is in `group`, or the primary when there is none.

        Raises:
            UnknownGroupError: there are replicas, and none belongs to `group`.

        """
        turns = self._turns.get(group or DEFAULT_GROUP)
        if turns is not None:
            return turns.choose().engine
        if group is not None and self.members:
            raise UnknownGroupError(group=group, known=tuple(self._turns))
        return self.primary

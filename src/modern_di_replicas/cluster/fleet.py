"""All replicas as one: whose turn is it, and who stands behind them."""

import collections.abc
import dataclasses

from sqlalchemy.ext.asyncio import AsyncEngine

from modern_di_replicas.cluster.health import Health
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
    health: Health


class Fleet:
    """The replicas of one application, with the primary behind them.

    Args:
        members: the replicas; may be empty.
        primary: the engine that does what the replicas cannot do.

    """

    def __init__(self, *, members: collections.abc.Sequence[Member], primary: AsyncEngine) -> None:
        self.members = tuple(members)
        self.primary = primary
        self._groups = {
            group: tuple(member for member in members if group in member.groups)
            for group in sorted({group for member in members for group in member.groups})
        }
        self._balancer = WeightedRoundRobin()

    def choose(self, group: str | None = None) -> AsyncEngine:
        """Return the engine of the replica whose turn it is in `group`, or the primary when there is none.

        Raises:
            UnknownGroupError: there are replicas, and none belongs to `group`.

        """
        members = self._groups.get(group or DEFAULT_GROUP)
        if members is None:
            if group is not None and self.members:
                raise UnknownGroupError(group=group, known=tuple(self._groups))
            return self.primary
        up = [member for member in members if not member.health.is_down]
        return self._balancer.choose(up).engine if up else self.primary

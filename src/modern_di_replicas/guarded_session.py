"""A session that tells its guard against lost updates what came from the replica, and what is about to be written."""

import collections.abc
import typing

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.orm import IdentityMap, Mapper, QueryContext, object_session

from modern_di_replicas.get_by_key import GetByKeySession
from modern_di_replicas.stale_writes import StaleWriteGuard


_FROM_REPLICA: typing.Final = "modern_di_replicas_from_replica"


class GuardedSession(GetByKeySession):
    """A session that may leave its replica, and writes nothing that may be stale from then on."""

    # In the class and not in each session, because they seldom change: Python makes an object of some 30 attributes
    # of its own for half as much again.
    escalation: str | None = None
    """Why this unit of work moved to the primary; None while it reads from its replica."""
    has_streamed: bool = False
    """Whether rows of the replica may come as late as they are asked for."""
    _asks_primary: bool = False
    _guard: StaleWriteGuard | None = None
    _left_behind: tuple[IdentityMap, ...] = ()

    @property
    def guard(self) -> StaleWriteGuard:
        """Made when it is needed: most units of work only read."""
        if self._guard is None:
            self._guard = StaleWriteGuard()
        return self._guard

    def run_on_primary(
        self,
        run: collections.abc.Callable[..., typing.Any],
        statement: typing.Any,  # noqa: ANN401  # as `Session` has it
        args: tuple[typing.Any, ...],
        options: dict[str, typing.Any],
    ) -> typing.Any:  # noqa: ANN401
        """Run a statement, once the session has left its replica."""
        enclosing, self._asks_primary = self._asks_primary, True
        try:
            return run(self, statement, *args, **options)
        finally:
            self._asks_primary = enclosing

    @property
    def loads_from_primary(self) -> bool:
        """Whether an object that is loaded now comes from the primary, once the session has left its replica.

        Where it has streamed from the replica, only what a statement loads at once is known to.
        """
        return self._asks_primary or not self.has_streamed

    def expunge(self, instance: object) -> None:
        super().expunge(instance)
        self.guard.expunged(instance)

    def expunge_all(self) -> None:  # `close()` does it as well
        if self.identity_map:
            self._left_behind = (*self._left_behind, self.identity_map)
        super().expunge_all()

    def has_left_behind(self, instance: object) -> bool:
        """Whether the session has had an object before it was emptied."""
        key = sqlalchemy.inspect(instance, raiseerr=True).identity_key
        return any(objects.get(key) is instance for objects in self._left_behind)


def mark_rows(options: dict[str, typing.Any], rows_of_replica: list[bool]) -> dict[str, typing.Any]:
    """Return the options of a statement whose rows come from the replica, also when its session has left it.

    Args:
        options: those of `Session.execute`.
        rows_of_replica: emptied when they come from the primary after all.

    """
    given = options.get("execution_options") or {}
    return {**options, "execution_options": {**given, _FROM_REPLICA: rows_of_replica}}


@event.listens_for(GuardedSession, "detached_to_persistent")
def _attached(session: GuardedSession, instance: object) -> None:
    if not session.has_left_behind(instance):
        session.guard.attached(instance)


@event.listens_for(Mapper, "refresh")
def _refreshed(target: object, context: QueryContext, attrs: collections.abc.Collection[str] | None) -> None:
    session = object_session(target)
    if not isinstance(session, GuardedSession):
        return
    is_marked = context is not None and context.execution_options.get(_FROM_REPLICA)
    if session.escalation is None or is_marked:
        session.guard.came_from_replica(target)
    else:
        session.guard.refreshed(target, attrs)


# What a flush writes besides what was changed: orphans, and the foreign keys of a collection's members.


@event.listens_for(Mapper, "before_update")
def _before_update(mapper: object, connection: object, target: object) -> None:  # noqa: ARG001  # the event's signature
    session = object_session(target)
    if isinstance(session, GuardedSession):
        session.guard.check_update(target)


@event.listens_for(Mapper, "before_delete")
def _before_delete(mapper: object, connection: object, target: object) -> None:  # noqa: ARG001
    session = object_session(target)
    if isinstance(session, GuardedSession):
        session.guard.check_object(target)

"""A session that reports loaded objects and writes to its guard against lost updates."""

import collections.abc
import typing

from sqlalchemy import Update, event, inspect, select, tuple_
from sqlalchemy.orm import (
    ONETOMANY,
    IdentityMap,
    InstanceState,
    Mapper,
    QueryContext,
    Session,
    UOWTransaction,
    object_session,
)
from sqlalchemy.util import immutabledict

from modern_di_replicas.routing.decision import Decision
from modern_di_replicas.session.get_by_key import GetByKeySession
from modern_di_replicas.session.stale_writes import StaleWriteGuard, state_of
from modern_di_replicas.session.unit_of_work import UnitOfWork


ALL_AT_ONCE: typing.Final = immutabledict({"prebuffer_rows": True})
"""The option of `AsyncSession.execute()` to load all objects before the result is read.

Once a session has left its replica, an object that is created when its row is read could not be told from the
primary's.
"""

_AT_ONCE: typing.Final = 1000
"""The number of objects that one statement loads."""

_FROM_REPLICA: typing.Final = "modern_di_replicas_from_replica"


class GuardedSession(GetByKeySession):
    """A session that may leave its replica, and then writes nothing that may be stale."""

    # In the class and not in each session, because they seldom change: an object with 30 own attributes takes
    # half as long again to create.
    escalation: Decision | None = None
    """Why this unit of work moved to the primary; None while it reads from its replica."""
    has_streamed: bool = False
    """Whether it has streamed from the replica, so that rows may still arrive."""
    has_binds: bool = False
    """Whether some classes or tables may be bound to another database."""
    _asks_primary: bool = False
    _guard: StaleWriteGuard | None = None
    _left_behind: collections.abc.Sequence[IdentityMap] = ()
    _unit: UnitOfWork | None = None

    @property
    def guard(self) -> StaleWriteGuard:
        """Created when it is needed: most units of work only read."""
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
        """Run a statement after the session has left its replica."""
        enclosing, self._asks_primary = self._asks_primary, True
        try:
            result = run(self, statement, *args, **options)
            if self.identity_map and isinstance(statement, Update) and not options.get("bind_arguments"):
                self._read_updated(statement, options.get("execution_options") or {})
            return result
        finally:
            self._asks_primary = enclosing

    @property
    def loads_from_primary(self) -> bool:
        """Whether an object that is loaded now comes from the primary, after the session has left its replica.

        If it has streamed from the replica, this is only known for objects that a statement loads at once.
        """
        return self._asks_primary or not self.has_streamed

    def expunge(self, instance: object) -> None:
        leaving = list(_with_cascade(instance, "expunge"))
        super().expunge(instance)
        for one in leaving:
            self.guard.expunged(one)
        self._report_to_unit(leaving)

    def expunge_all(self) -> None:  # `close()` does it as well
        if not (self.identity_map or self.new or self.escalation or self.has_streamed):
            return  # it is empty, and no row can arrive; SQLAlchemy is slow even then
        if self.identity_map:
            self._left_behind = [*filter(None, self._left_behind), self.identity_map]
            self._report_to_unit(self.identity_map.values())
        super().expunge_all()

    def _report_to_unit(self, leaving: collections.abc.Iterable[object]) -> None:
        """Report the objects that may be stale to the other sessions of the unit of work."""
        if self._unit is not None:
            self._unit.stale.update(state_of(one) for one in leaving if not self.guard.is_fresh(one))

    def has_contained(self, instance: object) -> bool:
        """Return whether an object has been in the session before, or in another one of its unit of work.

        Objects that the other one has loaded from the primary do not count.
        """
        left = (_with_key_of(instance, objects) for objects in self._left_behind)
        if self.guard.has_expunged(instance) or any(one is instance for one in left):
            return True
        return self._unit is not None and (state_of(instance) in self._unit.stale or self._holds_another(instance))

    def _holds_another(self, instance: object) -> bool:
        """Return whether another session of the unit of work holds an object that may be stale."""
        other = object_session(instance)
        return (
            isinstance(other, GuardedSession)
            and other is not self
            and other._unit is self._unit  # noqa: SLF001  # of the same class
            and not other.guard.is_fresh(instance)
        )

    def merge(self, instance: typing.Any, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401  # as `Session` has it
        stale = [
            one for one in _with_cascade(instance, "merge") if self.has_contained(one) and not self.guard.is_fresh(one)
        ]
        merged = super().merge(instance, *args, **options)
        for one in stale:
            # All its values overwrite those from the primary.
            if (target := _with_key_of(one, self.identity_map)) is not None:
                self.guard.came_from_replica(target)
        return merged

    def _read_updated(self, statement: Update, options: collections.abc.Mapping[str, typing.Any]) -> None:
        """Reload the objects that an UPDATE may have changed: SQLAlchemy computes their new values from the replica's.

        Args:
            statement: the statement, after its execution on the primary.
            options: its execution options.

        """
        asked = {**statement.get_execution_options(), **options}
        entity = statement.entity_description.get("entity")
        mapper: Mapper[typing.Any] | None = None if entity is None else inspect(entity).mapper
        if mapper is None or asked.get("synchronize_session") is False or self.is_bound_elsewhere(mapper):
            return
        held = (one for one in self.identity_map.values() if isinstance(one, mapper.class_))
        stale = [state_of(one).identity for one in held if not (self.guard.is_fresh(one) or self.is_modified(one))]
        for start in range(0, len(stale), _AT_ONCE):
            with self.no_autoflush:
                is_one = tuple_(*mapper.primary_key).in_(stale[start : start + _AT_ONCE])
                reload = select(mapper).where(is_one).execution_options(populate_existing=True)
                self.run_on_primary(Session.scalars, reload, (), {}).all()

    def is_bound_elsewhere(self, mapper: Mapper[typing.Any]) -> bool:
        """Return whether the objects of a class are in another database."""
        return self.has_binds and super().get_bind(mapper) is not self.bind

    def check_written(self, instance: object, check: collections.abc.Callable[[object], None]) -> None:
        """Let the guard check an object before it is written.

        Raises:
            StaleWriteError: its row would be overwritten with values of a replica.

        """
        if not self.is_bound_elsewhere(state_of(instance).mapper):
            check(instance)

    def check_changes(self) -> None:
        """Check the objects of a flush, as far as they are known before it.

        Raises:
            StaleWriteError: see `check_written`.

        """
        for instance in self.deleted:
            self.check_written(instance, self.guard.check_object)
        for instance in self.dirty:
            self.check_written(instance, self.guard.check_update)
            for member in filter(self.__contains__, _removed_members(instance)):
                self.check_written(member, self.guard.check_object)


def _with_key_of(instance: object, objects: IdentityMap) -> object:
    """Return the object of the same row; None for one that has no row yet."""
    return objects.get(typing.cast(typing.Any, state_of(instance).key))


def _removed_members(instance: object) -> collections.abc.Iterator[object]:
    """Yield what has left the collections of an object: its rows are deleted, or their foreign keys cleared."""
    state = state_of(instance)
    for key, relationship in state.mapper.relationships.items():
        if relationship.direction is ONETOMANY and not relationship.viewonly and relationship.passive_deletes != "all":
            removed = state.attrs[key].history.deleted or ()
            yield from (one for one in removed if one is not None and state_of(one).persistent)


def _with_cascade(instance: object, cascade: str) -> collections.abc.Iterator[object]:
    """Yield an object, and those that an operation on it cascades to; nothing if it is not mapped."""
    state = inspect(instance, raiseerr=False)
    if not isinstance(state, InstanceState):
        return  # SQLAlchemy raises
    yield instance
    for reached, *_ in state.mapper.cascade_iterator(cascade, state):
        yield reached


def mark_rows(options: dict[str, typing.Any], rows_of_replica: list[bool]) -> dict[str, typing.Any]:
    """Return the options of a statement whose rows come from the replica, even after its session has left it.

    Args:
        options: the options of `Session.execute`.
        rows_of_replica: emptied when they come from the primary after all.

    """
    given = options.get("execution_options") or {}
    return {**options, "execution_options": {**given, _FROM_REPLICA: rows_of_replica}}


@event.listens_for(GuardedSession, "detached_to_persistent")
def _attached(session: GuardedSession, instance: object) -> None:
    if not session.has_contained(instance):
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


# Further writes of a flush, such as the foreign keys of a collection's members. Listeners of `before_update` and
# `before_delete` would be those of every mapper of the application, and libraries look for such listeners: Advanced
# Alchemy's native upsert is not used where there are any. An error here rolls the flush back as well.


@event.listens_for(GuardedSession, "after_flush")
def _after_flush(session: GuardedSession, flush_context: UOWTransaction) -> None:
    for instance in session.dirty:
        session.check_written(instance, session.guard.check_update)
    for instance in session.identity_map.values():
        if flush_context.is_deleted(state_of(instance)):  # type: ignore[no-untyped-call]  # it has no annotations
            session.check_written(instance, session.guard.check_object)

"""The guard against lost updates: an object from a replica may be older than the row it would overwrite."""

import functools
import typing
import weakref

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.orm import MANYTOONE, InstanceState, Mapper, Session

from modern_di_replicas.errors import StaleWriteError


class StaleWriteGuard:
    """Tracks which objects of a session may be written after it has left its replica.

    These are objects loaded from the primary since, and objects that did not come from this session's replica. All
    others may be stale, however late they are created: rows of a replica may still arrive.
    """

    def __init__(self) -> None:
        self._has_left_replica = False
        self._fresh: weakref.WeakSet[InstanceState[typing.Any]] = weakref.WeakSet()
        self._fresh_attributes: weakref.WeakKeyDictionary[InstanceState[typing.Any], set[str]] = (
            weakref.WeakKeyDictionary()
        )
        """The fresh attributes of objects that are not fresh as a whole."""
        self._expunged: weakref.WeakSet[InstanceState[typing.Any]] = weakref.WeakSet()

    def left_replica(self, session: Session) -> None:
        """Record the objects loaded from the primary from now on; before that, recording would slow down reads."""
        self._has_left_replica = True
        event.listen(session, "loaded_as_persistent", self._loaded)
        event.listen(session, "pending_to_persistent", self._inserted)

    def _loaded(self, session: typing.Any, instance: object) -> None:  # noqa: ANN401  # a ReplicaSession
        if session.loads_from_primary:
            self._fresh.add(state_of(instance))

    def _inserted(self, session: Session, instance: object) -> None:  # noqa: ARG002  # the event's signature
        self._fresh.add(state_of(instance))

    def came_from_replica(self, instance: object) -> None:
        """Record an object that has the replica's values now."""
        state = state_of(instance)
        self._fresh.discard(state)
        self._fresh_attributes.pop(state, None)

    def expunged(self, instance: object) -> None:
        """Record an object that has left the session, and may come back."""
        self._expunged.add(state_of(instance))

    def has_expunged(self, instance: object) -> bool:
        """Return whether an object has been in the session and left it."""
        return state_of(instance) in self._expunged

    def is_fresh(self, instance: object) -> bool:
        """Return whether an object is known to be as fresh as the primary."""
        return state_of(instance) in self._fresh

    def attached(self, instance: object) -> None:
        """Record an object that another session has loaded, not this session's replica."""
        self._fresh.add(state_of(instance))

    def refreshed(self, instance: object, attributes: typing.Collection[str] | None) -> None:
        """Record that attributes of an object were reloaded from the primary; None for all."""
        state = state_of(instance)
        loaded = set(state.mapper.column_attrs.keys()) - state.unloaded
        fresh = self._fresh_attributes.setdefault(state, set())
        fresh.update(loaded if attributes is None else attributes)
        if loaded <= fresh:
            self._fresh.add(state)

    def check_update(self, instance: object) -> None:
        """Check an object whose row is updated if a changed column, or a reference that sets one, is not fresh.

        Raises:
            StaleWriteError: see `check_object`.

        """
        state = state_of(instance)
        changed = {key for key in _written_with(state.mapper) if state.attrs[key].history.has_changes()}
        # An UPDATE writes the changed columns; those of a reference are known when it is flushed.
        if changed - self._fresh_attributes.get(state, set()):
            self.check_object(instance)

    def check_object(self, instance: object) -> None:
        """Check an object before its row is written.

        Raises:
            StaleWriteError: it came from a replica, and its mapper has no `version_id_col` by which PostgreSQL would
                detect a stale object.

        """
        state = state_of(instance)
        if self._has_left_replica and state not in self._fresh and state.mapper.version_id_col is None:
            raise StaleWriteError(model=state.mapper.class_.__qualname__, key=tuple(state.identity or ()))


@functools.lru_cache(maxsize=1024)
def _written_with(mapper: Mapper[typing.Any]) -> tuple[str, ...]:
    """Return the attributes that are stored in the row; references from other rows are not."""
    references = (key for key, value in mapper.relationships.items() if value.direction is MANYTOONE)
    # Columns that a polymorphic mapper adds are not attributes of the objects.
    return tuple(key for key in (*mapper.column_attrs.keys(), *references) if key in mapper.class_manager)


def state_of(instance: object) -> InstanceState[typing.Any]:
    """Return SQLAlchemy's state of an object."""
    return typing.cast(InstanceState[typing.Any], sqlalchemy.inspect(instance))

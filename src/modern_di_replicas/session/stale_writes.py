"""The guard against lost updates: an object that came from a replica may be older than the row it would overwrite."""

import functools
import typing
import weakref

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.orm import MANYTOONE, InstanceState, Mapper, Session

from modern_di_replicas.errors import StaleWriteError


class StaleWriteGuard:
    """Knows which objects of a session may be written, once it has left its replica.

    Those that the primary has given since, and those that did not come from this session's replica. All others may be
    stale, however late they are made: rows of a replica may still be on their way.
    """

    def __init__(self) -> None:
        self._has_left_replica = False
        self._fresh: weakref.WeakSet[InstanceState[typing.Any]] = weakref.WeakSet()
        self._fresh_attributes: weakref.WeakKeyDictionary[InstanceState[typing.Any], set[str]] = (
            weakref.WeakKeyDictionary()
        )
        """Of objects that are not fresh as a whole."""
        self._expunged: weakref.WeakSet[InstanceState[typing.Any]] = weakref.WeakSet()

    def left_replica(self, session: Session) -> None:
        """Note what the primary gives from now on; before that, nothing is noted, so that reading costs nothing."""
        self._has_left_replica = True
        event.listen(session, "loaded_as_persistent", self._loaded)
        event.listen(session, "pending_to_persistent", self._inserted)

    def _loaded(self, session: typing.Any, instance: object) -> None:  # noqa: ANN401  # a ReplicaSession
        if session.loads_from_primary:
            self._fresh.add(state_of(instance))

    def _inserted(self, session: Session, instance: object) -> None:  # noqa: ARG002  # the event's signature
        self._fresh.add(state_of(instance))

    def came_from_replica(self, instance: object) -> None:
        """Note an object that has the replica's values now, whatever it had before."""
        state = state_of(instance)
        self._fresh.discard(state)
        self._fresh_attributes.pop(state, None)

    def expunged(self, instance: object) -> None:
        """Note an object that the session had, and that may come back."""
        self._expunged.add(state_of(instance))

    def has_expunged(self, instance: object) -> bool:
        """Return whether the session has had an object, and lost it."""
        return state_of(instance) in self._expunged

    def is_fresh(self, instance: object) -> bool:
        """Return whether an object is known to be no older than the primary was."""
        return state_of(instance) in self._fresh

    def attached(self, instance: object) -> None:
        """Note an object that was loaded by another session: this session's replica is not to blame for it."""
        self._fresh.add(state_of(instance))

    def refreshed(self, instance: object, attributes: typing.Collection[str] | None) -> None:
        """Note that an object was loaded again, from the primary; None stands for all attributes."""
        state = state_of(instance)
        loaded = set(state.mapper.column_attrs.keys()) - state.unloaded
        fresh = self._fresh_attributes.setdefault(state, set())
        fresh.update(loaded if attributes is None else attributes)
        if loaded <= fresh:
            self._fresh.add(state)

    def check_update(self, instance: object) -> None:
        """Check an object whose row is updated if a column has changed that is not fresh, or what sets one.

        Raises:
            StaleWriteError: see `check_object`.

        """
        state = state_of(instance)
        changed = {key for key in _written_with(state.mapper) if state.attrs[key].history.has_changes()}
        # An UPDATE writes the columns that have changed; what a reference sets is known when it is flushed.
        if changed - self._fresh_attributes.get(state, set()):
            self.check_object(instance)

    def check_object(self, instance: object) -> None:
        """Check an object whose row is about to be written.

        Raises:
            StaleWriteError: it came from a replica, and its mapper has no `version_id_col` that would let PostgreSQL
                tell whether it is stale.

        """
        state = state_of(instance)
        if self._has_left_replica and state not in self._fresh and state.mapper.version_id_col is None:
            raise StaleWriteError(model=state.mapper.class_.__qualname__, key=tuple(state.identity or ()))


@functools.lru_cache(maxsize=1024)
def _written_with(mapper: Mapper[typing.Any]) -> tuple[str, ...]:
    """Return the attributes whose change changes the row: what refers to it is in rows of its own."""
    references = (key for key, value in mapper.relationships.items() if value.direction is MANYTOONE)
    # What a polymorphic mapper adds on its own is no attribute of the objects.
    return tuple(key for key in (*mapper.column_attrs.keys(), *references) if key in mapper.class_manager)


def state_of(instance: object) -> InstanceState[typing.Any]:
    """Return what SQLAlchemy knows of an object."""
    return typing.cast(InstanceState[typing.Any], sqlalchemy.inspect(instance))

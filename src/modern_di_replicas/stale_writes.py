"""The guard against lost updates: an object that came from a replica may be older than the row it would overwrite."""

import typing
import weakref

import sqlalchemy
from sqlalchemy.orm import InstanceState, Session

from modern_di_replicas.errors import StaleWriteError


class StaleWriteGuard:
    """Remembers which objects of a session came from a replica and were not refreshed from the primary since."""

    def __init__(self) -> None:
        self._stale: weakref.WeakSet[InstanceState[typing.Any]] = weakref.WeakSet()
        self._foreign: weakref.WeakSet[InstanceState[typing.Any]] = weakref.WeakSet()

    def attached(self, instance: object) -> None:
        """Note an object that was loaded by another session: this session's replica is not to blame for it."""
        self._foreign.add(_state(instance))

    def left_replica(self, session: Session) -> None:
        """Note that everything the session holds by now came from a replica.

        Asked once, when the session moves to the primary, so that reading costs nothing.
        """
        self._stale.update(state for state in map(_state, session.identity_map.values()) if state not in self._foreign)

    def refreshed(self, instance: object, attributes: typing.Collection[str] | None) -> None:
        """Note that an object was loaded again, from the primary; None stands for all attributes."""
        state = _state(instance)
        if attributes is None or set(state.mapper.column_attrs.keys()) <= set(attributes):
            self._stale.discard(state)

    def check(self, session: Session) -> None:
        """Check what a session is about to flush.

        Raises:
            StaleWriteError: an object that came from a replica was modified or deleted, and its mapper has no
                `version_id_col` that would let PostgreSQL tell whether it is stale.

        """
        if not self._stale:
            return
        modified = (item for item in session.dirty if session.is_modified(item, include_collections=False))
        for instance in (*session.deleted, *modified):
            state = _state(instance)
            if state in self._stale and state.mapper.version_id_col is None:
                raise StaleWriteError(model=state.mapper.class_.__qualname__, key=tuple(state.identity or ()))


def _state(instance: object) -> InstanceState[typing.Any]:
    return typing.cast(InstanceState[typing.Any], sqlalchemy.inspect(instance))

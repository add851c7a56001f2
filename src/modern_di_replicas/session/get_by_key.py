"""`Session.get()` with a statement that is built once for each mapped class instead of for each call."""

import functools
import inspect
import typing
import uuid

from sqlalchemy import Select, Table, bindparam, select
from sqlalchemy.orm import Mapper, Session

from modern_di_replicas.session.in_flight import InFlightSession


KEYS: typing.Final = (int, str, uuid.UUID)
"""The types of primary keys that are looked up this way."""

_KEY: typing.Final = "modern_di_replicas_key"  # criteria of the application may have their own parameters

_NOT_OF_APPLICATION: typing.Final = frozenset({"sqlalchemy", __name__.split(".")[0]})

_UNSET: typing.Final = {
    name: parameter.default
    for name, parameter in inspect.signature(Session.get).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}
"""The default options of `get()`."""
_UNSET_IN_ASYNC: typing.Final = {name: value for name, value in _UNSET.items() if name != "bind_arguments"}
"""The same as `AsyncSession.get()` passes them on."""


class GetByKeySession(InFlightSession):
    """A session that gets an object by a plain primary key in about four fifths of the time.

    `Session.get()` does the rest: options, a lock, a composite key, a class with a hierarchy, an object that may be in
    the identity map, a session class with its own `execute()`.
    """

    def get(self, entity: typing.Any, ident: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401  # as `Session` has it
        is_plain = not options or options in (_UNSET_IN_ASYNC, _UNSET)
        mapper = getattr(entity, "__mapper__", None) if is_plain and isinstance(ident, KEYS) else None
        session_class: typing.Any = type(self)  # mypy finds no hash in type[Session]
        # Not for an unmapped class that inherits it, and not where SQLAlchemy would call a method of the application.
        if isinstance(mapper, Mapper) and mapper.class_ is entity and not _has_methods_of_application(session_class):
            statement = _statement(mapper)
            if statement is not None and not self._may_hold(mapper, ident):
                # With a joined collection there are several rows, which are all read before the object is returned.
                return self.scalar(statement, {_KEY: ident})
        return self.get_uncached(entity, ident, options)

    def get_uncached(self, entity: typing.Any, ident: typing.Any, options: dict[str, typing.Any]) -> typing.Any:  # noqa: ANN401
        """Get an object as `Session.get()` does."""
        return super().get(entity, ident, **options)

    def _may_hold(self, mapper: Mapper[typing.Any], ident: object) -> bool:
        return bool(self.identity_map) and mapper.identity_key_from_primary_key((ident,)) in self.identity_map


@functools.lru_cache(maxsize=1024)
def _statement(mapper: Mapper[typing.Any]) -> Select[typing.Any] | None:
    """Return the statement that loads an object by its primary key; None if that needs more than a comparison."""
    has_hierarchy = mapper.inherits or mapper.polymorphic_on is not None or mapper.with_polymorphic
    table, key = mapper.local_table, mapper.primary_key
    if has_hierarchy or mapper.always_refresh or not isinstance(table, Table) or len(key) != 1:
        return None
    return select(mapper).where(key[0] == bindparam(_KEY, type_=key[0].type))


@functools.lru_cache(maxsize=1024)
def _has_methods_of_application(session_class: typing.Any) -> bool:  # noqa: ANN401  # see above
    """Return whether a session's `execute()`, which `Session.get()` calls, or `scalar()` belongs to the application.

    A filter in it, for the rows of a tenant for example, must apply to `get()` as well.
    """
    for name in ("execute", "scalar"):
        defining = next(base for base in session_class.__mro__ if name in vars(base))
        if defining.__module__.split(".")[0] not in _NOT_OF_APPLICATION:
            return True
    return False

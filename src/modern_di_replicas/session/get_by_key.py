"""`Session.get()` with a statement that is built once for each mapped class, and not once for each call."""

import functools
import typing
import uuid

from sqlalchemy import Select, Table, bindparam, inspect, select
from sqlalchemy.orm import Mapper

from modern_di_replicas.session.in_flight import InFlightSession


KEYS: typing.Final = (int, str, uuid.UUID)
"""The types of a primary key's value that is looked up this way."""

_KEY: typing.Final = "modern_di_replicas_key"  # criteria of the application may have parameters of their own
_OPTIONS: typing.Final = frozenset(
    {"options", "populate_existing", "with_for_update", "identity_token", "execution_options", "bind_arguments"}
)


class GetByKeySession(InFlightSession):
    """A session that gets an object by a plain primary key in about four fifths of the time.

    Whatever asks for more (options, a lock, a composite key, a class with a hierarchy, an object that may be in the
    identity map) is left to `Session.get()`.
    """

    def get(self, entity: typing.Any, ident: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401  # as `Session` has it
        if isinstance(ident, KEYS) and (not options or _are_unset(options)):
            mapper = inspect(entity, raiseerr=False)
            statement = _statement(mapper) if isinstance(mapper, Mapper) else None
            if statement is not None and not self._may_hold(mapper, ident):
                # With a joined collection it comes in several rows, all of which are read before the first is given.
                return self.scalar(statement, {_KEY: ident})
        return super().get(entity, ident, **options)

    def _may_hold(self, mapper: Mapper[typing.Any], ident: object) -> bool:
        return bool(self.identity_map) and mapper.identity_key_from_primary_key((ident,)) in self.identity_map


def _are_unset(options: dict[str, typing.Any]) -> bool:
    if any(options.values()) or not options.keys() <= _OPTIONS:
        return False
    # An empty dictionary asks for a lock, and any token but None for another identity.
    return options.get("with_for_update") is options.get("identity_token") is None


@functools.lru_cache(maxsize=1024)
def _statement(mapper: Mapper[typing.Any]) -> Select[typing.Any] | None:
    """Return the statement that loads an object by its primary key; None where that is more than a comparison."""
    has_hierarchy = mapper.inherits or mapper.polymorphic_on is not None or mapper.with_polymorphic
    table, key = mapper.local_table, mapper.primary_key
    if has_hierarchy or mapper.always_refresh or not isinstance(table, Table) or len(key) != 1:
        return None
    return select(mapper).where(key[0] == bindparam(_KEY, type_=key[0].type))

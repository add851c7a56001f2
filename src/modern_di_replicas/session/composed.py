"""Combine a session class of the application with the library's."""

import collections.abc
import functools
import typing

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.session.taken_names import check_class


OwnClass = type[Session] | collections.abc.Callable[..., Session]
"""The type of `sync_session_class` of `AsyncSession`."""


def combined(own: OwnClass, ours: type[Session]) -> OwnClass:
    """Return a combination of both classes: the application's methods come first, and their `super()` is the library's.

    Args:
        own: the application's class, or a `functools.partial` of one.
        ours: the class for the role of the server.

    Raises:
        ConfigurationError: `own` is another callable, whose sessions cannot get the library's methods; or see
            `check_class`.

    """
    if isinstance(own, functools.partial):
        return functools.partial(combined(own.func, ours), *own.args, **own.keywords)
    if isinstance(own, type) and issubclass(own, Session):
        return _combined(typing.cast(typing.Any, own), typing.cast(typing.Any, ours))
    raise ConfigurationError(
        field="sync_session_class", value=own, remedy="pass a subclass of sqlalchemy.orm.Session, or a partial of one"
    )


@functools.lru_cache(maxsize=1024)
def _combined(own: typing.Any, ours: typing.Any) -> type[Session]:  # noqa: ANN401  # mypy finds no hash in type[Session]
    if issubclass(ours, own):
        return typing.cast(type[Session], ours)
    if issubclass(own, ours):
        return typing.cast(type[Session], own)
    check_class(own)
    chooses = own.get_bind is not Session.get_bind and hasattr(ours, "note_bind")
    bases = (_OwnGetBind, own, ours) if chooses else (own, ours)
    return type(own.__name__, bases, {"__module__": own.__module__, "__doc__": own.__doc__})


class _OwnGetBind(Session):
    """Passes the result of the application's `get_bind()` to the routing."""

    def get_bind(self, *args: typing.Any, **options: typing.Any) -> Engine | Connection:
        found = super().get_bind(*args, **options)
        typing.cast(typing.Any, self).note_bind(found)
        return found

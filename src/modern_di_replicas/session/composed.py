"""A session class of the application, combined with ours."""

import collections.abc
import functools
import inspect
import itertools
import typing

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.session.replica import ReplicaSession


OwnClass = type[Session] | collections.abc.Callable[..., Session]
"""What `AsyncSession` takes as `sync_session_class`."""


def _names_of(session_class: type) -> set[str]:
    annotated = (inspect.get_annotations(base) for base in session_class.__mro__)
    return set(dir(session_class)).union(*annotated)


_NAMES: typing.Final = _names_of(ReplicaSession) - _names_of(Session)
"""What the routing has besides what each session has."""

_PACKAGE: typing.Final = __name__.split(".")[0]
_SET_BY_SQLALCHEMY: typing.Final = "_given_join_mode"


def check_class(own: type) -> None:
    """Refuse a class that has attributes of the routing's names: each of the two would take the other's for its own.

    Args:
        own: the application's class, or one that is combined with the routing already.

    Raises:
        ConfigurationError: there are such attributes.

    """
    given = (vars(base) for base in own.__mro__ if base.__module__.split(".")[0] != _PACKAGE)
    _refuse(own, _NAMES.intersection(itertools.chain.from_iterable(given)))


def check_attributes(session: Session) -> None:
    """Refuse a session whose class has set such attributes when it was made; before `ReplicaSession.route`.

    Args:
        session: has just been made.

    Raises:
        ConfigurationError: there are such attributes.

    """
    _refuse(type(session), _NAMES.intersection(vars(session)) - {_SET_BY_SQLALCHEMY})


def _refuse(own: type, taken: set[str]) -> None:
    if taken:
        raise ConfigurationError(
            field="sync_session_class",
            value=own,
            remedy=f"rename {', '.join(sorted(taken))}: the routing of a session has attributes of that name, "
            "too; or keep it in `Session.info`",
        )


def combined(own: OwnClass, ours: type[Session]) -> OwnClass:
    """Return a class whose sessions do what both classes do; the application's methods come first, `super()` is ours.

    Args:
        own: the application's class, or a `functools.partial` of one.
        ours: the class for the role of the server.

    Raises:
        ConfigurationError: `own` is another callable, whose sessions cannot be given our methods; or see `check_class`.

    """
    if isinstance(own, functools.partial):
        return functools.partial(combined(own.func, ours), *own.args, **own.keywords)
    if isinstance(own, type) and issubclass(own, Session):
        return _combined(typing.cast(typing.Any, own), typing.cast(typing.Any, ours))
    raise ConfigurationError(
        field="sync_session_class", value=own, remedy="give a subclass of sqlalchemy.orm.Session, or a partial of one"
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
    """Tells the routing where a `get_bind()` of the application sends a statement."""

    def get_bind(self, *args: typing.Any, **options: typing.Any) -> Engine | Connection:
        found = super().get_bind(*args, **options)
        typing.cast(typing.Any, self).note_bind(found)
        return found

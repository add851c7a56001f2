"""Refuse attributes of the application's session class whose names the routing uses."""

import inspect
import itertools
import typing

from sqlalchemy.orm import Session

from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.session.replica import ReplicaSession


def _names_of(session_class: type) -> set[str]:
    annotated = (inspect.get_annotations(base) for base in session_class.__mro__)
    return set(dir(session_class)).union(*annotated)


_NAMES: typing.Final = _names_of(ReplicaSession) - _names_of(Session)
"""The attributes that the routing adds to a session."""

_PACKAGE: typing.Final = __name__.split(".")[0]
_SET_BY_SQLALCHEMY: typing.Final = "_given_join_mode"


def check_class(own: type) -> None:
    """Refuse a class that has attributes with names of the routing: one would overwrite the other.

    Args:
        own: the application's class, or its combination with the routing.

    Raises:
        ConfigurationError: there are such attributes.

    """
    given = (vars(base) for base in own.__mro__ if base.__module__.split(".")[0] != _PACKAGE)
    _refuse(own, _NAMES.intersection(itertools.chain.from_iterable(given)))


def check_attributes(session: Session) -> None:
    """Refuse a session whose constructor has set such attributes; called before `ReplicaSession.route`.

    Args:
        session: a new session.

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

"""What a session class of the application may not name its attributes, because the routing has such."""

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

"""More sessions for one unit of work: one for each of its threads."""

import collections.abc
import contextlib
import typing

from sqlalchemy.orm import Session

from modern_di_replicas.cluster.not_picklable import NotPicklable
from modern_di_replicas.consistency.client import current_client, request_of
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.session.unit_of_work import UnitOfWork
from modern_di_replicas.sync.session import RoutedSession


class SessionFactory(NotPicklable):
    """Opens further sessions of a unit of work: `with sessions() as session`, one for each of its threads.

    They are like the injected session: of the same class, with the same options, intent and client, on the same server.
    Once a session of the unit of work has moved to the primary, later ones begin there; open ones stay where they are.
    Sessions that are not closed are closed with the unit of work.

    Args:
        session: the injected session.

    Raises:
        ConfigurationError: the session is no `RoutedSession`.

    """

    def __init__(self, session: Session) -> None:
        if not isinstance(session, RoutedSession):
            raise ConfigurationError(
                field="session", value=session, remedy="the provider `session` has to return a RoutedSession"
            )
        self._client = current_client()
        self._session = session
        self._unit = UnitOfWork()
        session.join_unit(self._unit)
        self._open: set[RoutedSession] = set()

    def __call__(self, **options: typing.Any) -> RoutedSession:
        """Return another session of the unit of work.

        Args:
            **options: options of `Session` that differ, such as `autoflush=False`.

        """
        session = self._session.another(**options)
        session.join_unit(self._unit, self._open)
        return session

    @contextlib.contextmanager
    def in_thread(self, **options: typing.Any) -> collections.abc.Iterator[RoutedSession]:
        """Open a session in another thread: its commits are recorded for the client of this unit of work.

        A thread has its own context, where the client is not known: `contextvars.copy_context().run(...)` does the same
        for everything that a thread runs.

        Args:
            **options: options of `Session` that differ.

        """
        with request_of(self._client), self(**options) as session:
            yield session

    @property
    def has_open(self) -> bool:
        """Whether any of its sessions is still open."""
        return bool(self._open)

    def close(self) -> None:
        """Close the sessions that are still open."""
        while self._open:
            self._open.pop().close()

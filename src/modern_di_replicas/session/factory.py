"""More sessions for one unit of work: one for each task of a `gather`."""

import typing

from sqlalchemy.ext.asyncio import AsyncSession

from modern_di_replicas.cluster.not_picklable import NotPicklable
from modern_di_replicas.consistency.client import current_client
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.session.routed import RoutedSession
from modern_di_replicas.session.unit_of_work import UnitOfWork


class SessionFactory(NotPicklable):
    """Opens further sessions of a unit of work: `async with sessions() as session`, one for each task of a `gather`.

    They are like the injected session: of the same class, with the same options, intent and client, on the same server.
    Once a session of the unit of work has moved to the primary, later ones begin there; open ones stay where they are.
    Sessions that are not closed are closed with the unit of work.

    Args:
        session: the injected session.

    Raises:
        ConfigurationError: the session is no `RoutedSession`.

    """

    def __init__(self, session: AsyncSession) -> None:
        if not isinstance(session, RoutedSession):
            raise ConfigurationError(
                field="session", value=session, remedy="the provider `session` has to return a RoutedSession"
            )
        # Creates the record now: a task would create its own, which no other task sees.
        current_client()
        self._session = session
        self._unit = UnitOfWork()
        session.join_unit(self._unit)
        self._open: set[RoutedSession] = set()

    def __call__(self, **options: typing.Any) -> RoutedSession:
        """Return another session of the unit of work.

        Args:
            **options: options of `AsyncSession` that differ, such as `autoflush=False`.

        """
        session = self._session.another(**options)
        session.join_unit(self._unit, self._open)
        return session

    @property
    def has_open(self) -> bool:
        """Whether any of its sessions is still open."""
        return bool(self._open)

    async def close(self) -> None:
        """Close the sessions that are still open."""
        while self._open:
            # SQLAlchemy shields this from cancellation, and not a plain close().
            await self._open.pop().__aexit__(None, None, None)

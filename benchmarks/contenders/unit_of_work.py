"""A unit of work of the contenders with a modern-di container."""

import types
import typing

from modern_di import Container, Scope
from sqlalchemy.ext.asyncio import AsyncSession


class UnitOfWork:
    """A container for one request, and its session.

    A generator with a decorator would add microseconds that contenders without a container do not have.
    """

    def __init__(self, container: Container, context: dict[type[typing.Any], typing.Any] | None = None) -> None:
        self._unit = container.build_child_container(scope=Scope.REQUEST, context=context)

    async def __aenter__(self) -> AsyncSession:
        await self._unit.__aenter__()
        return self._unit.resolve(AsyncSession)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        await self._unit.__aexit__(kind, error, traceback)

"""A session that tracks its running operations, so that closing it can wait for them.

SQLAlchemy refuses to close a session while another task uses it, and the connection of that task is lost until the
garbage collection: an endpoint that starts several statements at once, and fails, would exhaust the pool.
"""

import asyncio
import collections.abc
import contextlib
import functools
import typing

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session


Method = typing.TypeVar("Method", bound=collections.abc.Callable[..., typing.Any])


class InFlightSession(Session):
    """A session that counts its running operations."""

    in_flight: int = 0
    """The number of running operations that may use a connection."""
    _idle: asyncio.Event | None = None
    is_provisioning: bool = False
    """Whether a task is taking the first connection."""

    def check_provisioning(self) -> None:
        """Raise while another task takes the connection, as SQLAlchemy's own sessions do."""
        if self.is_provisioning:
            msg = "This session is provisioning a new connection; concurrent operations are not permitted"
            raise InvalidRequestError(msg, code="isce")

    @contextlib.contextmanager
    def provisioning(self) -> collections.abc.Iterator[None]:
        """Refuse operations of other tasks during the block."""
        self.check_provisioning()
        self.is_provisioning = True
        try:
            yield
        finally:
            self.is_provisioning = False

    def ended(self) -> None:
        """Count the end of an operation."""
        self.in_flight -= 1
        if self._idle is not None and not self.in_flight:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until no operation runs."""
        while self.in_flight:
            idle = self._idle = self._idle or asyncio.Event()
            await idle.wait()
            self._idle = None


def _counted(method: Method) -> Method:
    @functools.wraps(method)
    def run(self: InFlightSession, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401  # as `Session` has it
        self.in_flight += 1
        try:
            return method(self, *args, **options)
        finally:
            self.ended()

    return typing.cast(Method, run)


# Wrapped in a loop, because all wrappers are the same; every other method that awaits calls one of these.
for _name in (
    *("execute", "scalar", "scalars", "connection", "flush", "commit", "rollback", "prepare", "begin_nested"),
    *("bulk_save_objects", "bulk_insert_mappings", "bulk_update_mappings"),
):
    setattr(InFlightSession, _name, _counted(getattr(Session, _name)))

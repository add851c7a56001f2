"""A session that knows whether something runs on it, so that closing it can wait until that has ended.

SQLAlchemy refuses to close a session on which another task runs something, and the connection of that task is lost
until garbage is collected: an endpoint that starts several statements at once, and fails, would empty the pool.
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
    """A session that counts what runs on it."""

    in_flight: int = 0
    """How many operations that may use a connection have not returned."""
    _idle: asyncio.Event | None = None
    is_provisioning: bool = False
    """Whether a task is taking the first connection."""

    def check_provisioning(self) -> None:
        """Refuse what runs while another task takes the connection, as SQLAlchemy's own sessions do."""
        if self.is_provisioning:
            msg = "This session is provisioning a new connection; concurrent operations are not permitted"
            raise InvalidRequestError(msg, code="isce")

    @contextlib.contextmanager
    def provisioning(self) -> collections.abc.Iterator[None]:
        """Refuse what other tasks run meanwhile."""
        self.check_provisioning()
        self.is_provisioning = True
        try:
            yield
        finally:
            self.is_provisioning = False

    def ended(self) -> None:
        """Note the end of an operation that was counted in `in_flight`."""
        self.in_flight -= 1
        if self._idle is not None and not self.in_flight:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until nothing runs."""
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


# Wrapped in a loop, because each would be the same few lines; all else that awaits something calls one of these.
for _name in (
    *("execute", "scalar", "scalars", "connection", "flush", "commit", "rollback", "prepare", "begin_nested"),
    *("bulk_save_objects", "bulk_insert_mappings", "bulk_update_mappings"),
):
    setattr(InFlightSession, _name, _counted(getattr(Session, _name)))

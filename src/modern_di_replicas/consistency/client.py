"""What the client of the current request has written, as far as this process knows.

The record belongs to the request, not to a session: two sessions of one request have the same client, and Core on
`PrimaryEngine` has no session at all. Where it leaks, into a task that a request has started, reads there are fresher
than they had to be, never older.
"""

import collections.abc
import contextlib
import contextvars
import dataclasses
import typing

from modern_di_replicas.consistency.token import ConsistencyToken


@dataclasses.dataclass(kw_only=True, slots=True)
class Client:
    """What one client has written.

    Args:
        token: what it brought along.
        is_request: whether it is the client of a request, whose reads include its writes.

    """

    token: ConsistencyToken | None = None
    is_request: bool = False
    wrote: bool = False
    """Whether it wrote here, in this request."""
    position_unknown: bool = False
    """Whether it wrote, and the primary could not be asked how far that was."""

    def written(self, token: ConsistencyToken | None) -> None:
        """Note a commit that wrote; None when the primary could not be asked how far it was then."""
        self.wrote = True
        self.position_unknown = token is None
        self.token = token or self.token


_current: contextvars.ContextVar[Client | None] = contextvars.ContextVar("modern_di_replicas_client", default=None)


def current_token() -> ConsistencyToken | None:
    """Return what a read must include to show what was written here; None when nothing was.

    In a request that is what the request wrote, or what its client brought along from its last write. Elsewhere,
    in a job or a test, it is what was written last in the current context. Pass it to the next read:
    `Intent.read(after=token)`. None as well when the connection broke right after a commit, so that the primary could
    not be asked how far it was: read with STRONG then.
    """
    client = _current.get()
    return None if client is None or client.position_unknown else client.token


def client_of_request() -> Client | None:
    """Return the client whose reads include its writes; None outside a request."""
    client = _current.get()
    return client if client is not None and client.is_request else None


def open_record() -> None:
    """Open a record for the current context, before a write that is noted when its connection goes back.

    SQLAlchemy gives a connection back in a task of its own, and context variables set there are not visible here.
    """
    if _current.get() is None:
        _current.set(Client())


def record_commit(token: ConsistencyToken | None) -> None:
    """Note a commit that wrote; None when the primary could not be asked how far it was then."""
    open_record()
    typing.cast(Client, _current.get()).written(token)


@contextlib.contextmanager
def request_of(client: Client) -> collections.abc.Iterator[None]:
    """Make a client the one of the current request.

    Args:
        client: the sender of the request.

    """
    before = _current.set(client)
    try:
        yield
    finally:
        _current.reset(before)

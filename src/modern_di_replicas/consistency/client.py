"""The writes of the current request's client, as far as this process knows them.

The record belongs to the request, not to a session: two sessions of one request have the same client, and Core on
`PrimaryEngine` has no session. If it leaks into a task that a request has started, reads there are fresher than
necessary, never older.
"""

import collections.abc
import contextlib
import contextvars
import time
import typing
import weakref

from modern_di_replicas.consistency.token import ConsistencyToken, later
from modern_di_replicas.intent import Intent


DOUBT_SECONDS: typing.Final = 60.0
"""Seconds for which a commit without an answer may still be running; a later position then includes it."""


SESSIONS: typing.Final = 64
"""The number of recorded sessions of a client at which those that have ended are removed."""


class Pending(typing.Protocol):
    """A session with its unflushed objects, named as in SQLAlchemy."""

    @property
    def new(self) -> collections.abc.Collection[object]: ...
    @property
    def dirty(self) -> collections.abc.Collection[object]: ...
    @property
    def deleted(self) -> collections.abc.Collection[object]: ...


class Client:
    """The record of one client's writes.

    Args:
        token: the token that it sent.
        is_request: whether it is the client of a request or a job, whose reads include its writes.
        position_unknown: whether its sender may have written after the position of its token.

    """

    def __init__(
        self, *, token: ConsistencyToken | None = None, is_request: bool = False, position_unknown: bool = False
    ) -> None:
        self.token = self.received = token
        """The latest known position; it never goes back."""
        self.is_request = is_request
        self.intent: Intent | None = None
        """The intent of the job of this client; None for the client of a request, which has endpoints."""
        self.enclosing: Client | None = None
        """The previous current client."""
        self._uncommitted: weakref.WeakSet[object] | None = None
        self._received_unknown = position_unknown
        self._open: set[Write] = set()
        self._has_unreported = self._has_foreign = False
        self._commits = 0
        self._declares_write = False
        self._sessions: list[weakref.ref[Pending]] = []

    @property
    def wrote(self) -> bool:
        """Whether it has written here, or may have, since the last response."""
        return self._has_unreported or any(not write.is_reported for write in self._open)

    @property
    def position_unknown(self) -> bool:
        """Whether it may have written after the position of its token."""
        return self._received_unknown or bool(self._open)

    @property
    def is_in_doubt(self) -> bool:
        """Whether a commit may still be running, because its answer was lost, or because it was not sent yet."""
        return self._received_unknown or any(write.order is None for write in self._open)

    @property
    def has_more_to_commit(self) -> bool:
        """Whether it may commit something that the position of its token does not include.

        Its unit of work declares a write and has not committed any, a transaction that has written is open, or a
        session holds changes that are not flushed.
        """
        if (self._declares_write and not self._commits) or self._uncommitted:
            return True
        sessions = [session for reference in self._sessions if (session := reference()) is not None]
        return any(session.new or session.dirty or session.deleted for session in sessions)

    def declare_write(self) -> None:
        """Record that its unit of work declares a write."""
        self._declares_write = True

    def begin_uncommitted(self, transaction: object) -> None:
        """Record a transaction that may have written, by a weak reference."""
        if self._uncommitted is None:
            self._uncommitted = weakref.WeakSet()
        self._uncommitted.add(transaction)

    def end_uncommitted(self, transaction: object) -> None:
        """Record that a transaction was committed or rolled back."""
        (self._uncommitted or set()).discard(transaction)

    def note_session(self, session: Pending, *, declares_write: bool) -> None:
        """Record a session of its unit of work.

        Args:
            session: the session; it is held weakly.
            declares_write: whether its unit of work declares a write.

        """
        self._declares_write |= declares_write
        if len(self._sessions) >= SESSIONS:
            self._sessions = [reference for reference in self._sessions if reference() is not None]
        self._sessions.append(weakref.ref(session))  # a list of these: a WeakSet takes ten times as long

    def include(self, other: "Client") -> None:
        """Include the writes of another client, from which this one is derived."""
        if other.token is not None:
            self.token = later(self.token, other.token)
        self._received_unknown |= other.position_unknown

    def note_token(self, token: ConsistencyToken) -> None:
        """Record a write of another service: the reads include it, and the response carries the token."""
        self.token = later(self.token, token)
        self._has_foreign = self._has_unreported = True

    def report_to(self, other: "Client") -> None:
        """Let another client include the writes of this one."""
        if self.token is not None and (self._commits or self._has_foreign):
            other.note_token(self.token)
        if self._open:
            other.begin_write()

    def note_response(self) -> None:
        """Record that a response with its position is being sent."""
        self._has_unreported = False
        for write in self._open:
            write.is_reported = True

    def begin_write(self) -> "Write":
        """Record a commit that is about to be sent; the position is unknown until its result is recorded."""
        write = Write(self)
        self._open.add(write)
        return write

    def written(self, token: ConsistencyToken | None) -> None:
        """Record a commit that wrote; None when the primary did not return its position."""
        write = self.begin_write()
        write.committed()
        if token is not None:
            write.known(token)


class Write:
    """One write of a client, from the moment its commit is about to be sent.

    Until `known` or `did_not_happen` is called, the client's position is unknown. So the write is recorded even if the
    commit is interrupted.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.order: int | None = None
        """The number of the commit; None while the commit is running, or if its answer was lost."""
        self.is_reported = False
        """Whether a response has said that the position is unknown."""
        self.began = time.monotonic()

    def committed(self) -> None:
        """Record that it is committed; called before the primary is asked for its position."""
        self.client._commits += 1  # noqa: SLF001  # two halves of one record
        self.order = self.client._commits  # noqa: SLF001

    def known(self, token: ConsistencyToken) -> None:
        """Record a position that includes it, and everything committed before the primary was asked."""
        client = self.client
        client.token = later(client.token, token)
        client._has_unreported |= not self.is_reported  # noqa: SLF001
        client._open = {write for write in client._open if not self._settles(write)}  # noqa: SLF001

    def did_not_happen(self) -> None:
        """Record that the server has not committed it."""
        self.client._open.discard(self)  # noqa: SLF001

    def _settles(self, other: "Write") -> bool:
        if other is self:
            return True
        if other.order is not None:
            return self.order is not None and other.order < self.order
        return self.began - other.began > DOUBT_SECONDS


_current: contextvars.ContextVar[Client | None] = contextvars.ContextVar("modern_di_replicas_client", default=None)


def current_token() -> ConsistencyToken | None:
    """Return the token that a read must include to show the writes made here; None without writes.

    In a request this is the token of its own write, or the one that its client sent. Elsewhere, in a job or a test, it
    is the token of the last write in the current context. Pass it to the next read: `Intent.read(after=token)`. It is
    also None when the position of a write is unknown, because the connection was lost at the commit or right after it:
    read with STRONG then.
    """
    client = _current.get()
    return None if client is None or client.position_unknown else client.token


def client_of_request() -> Client | None:
    """Return the client whose reads include its writes; None outside a request."""
    client = _current.get()
    return client if client is not None and client.is_request else None


def current_client() -> Client:
    """Return the client of the current context; outside a request it is created if there is none."""
    client = _current.get()
    if client is None:
        client = Client()
        _current.set(client)
    return client


def note_session(session: Pending, *, declares_write: bool) -> None:
    """Record a session of the current client's unit of work, if there is a client; see `Client.note_session`."""
    client = _current.get()
    if client is not None:
        client.note_session(session, declares_write=declares_write)


def declare_write() -> None:
    """Record that the current client's unit of work declares a write, if there is a client."""
    client = _current.get()
    if client is not None:
        client.declare_write()


def known_client() -> Client | None:
    """Return the client of the current context, or None; without a client nothing was written."""
    return _current.get()


def enter(client: Client) -> None:
    """Make a client the current one, until `leave`: for callbacks before and after a job."""
    client.enclosing = _current.get()
    _current.set(client)


def leave(client: Client) -> None:
    """Restore the client from before `enter`, if this is the same context."""
    if _current.get() is client:
        _current.set(client.enclosing)


@contextlib.contextmanager
def request_of(client: Client) -> collections.abc.Iterator[None]:
    """Make a client the one of the current request, or of the current job.

    Args:
        client: the client.

    """
    enter(client)
    try:
        yield
    finally:
        leave(client)

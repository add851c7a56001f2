"""Count the results of the requests by their responses."""

import collections
import collections.abc
import dataclasses
import time
import typing

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send


SHOWN_DECISIONS: typing.Final = 8
SHOWN_REQUESTS: typing.Final = 120
ONE_AFTER_THE_OTHER: typing.Final = 10.0
"""Seconds after which the same decision is a new line."""

LOWEST_FAILURE: typing.Final = 500
READS: typing.Final = ("GET", "HEAD")


@dataclasses.dataclass(kw_only=True, slots=True)
class Line:
    """A decision, and how often it was made."""

    request: str
    server: str | None
    """The name of the server that answered; None when the request failed."""
    reason: str
    count: int = 1
    at: float = 0.0
    """When it was made last, in seconds since 1970."""


class Requests:
    """Counts the requests of an application.

    Args:
        names: the name of each server, by its port.
        clock: the time, in seconds since 1970.

    """

    def __init__(
        self, names: collections.abc.Mapping[int, str], *, clock: collections.abc.Callable[[], float] = time.time
    ) -> None:
        self.answered: collections.Counter[str] = collections.Counter()
        """How many each server answered."""
        self.failed: collections.Counter[str] = collections.Counter()
        """How many reads and writes failed: `read`, `write`."""
        self.lines: collections.deque[Line] = collections.deque(maxlen=SHOWN_DECISIONS)
        """The last decisions, the newest first."""
        self.recent: collections.deque[str] = collections.deque(maxlen=SHOWN_REQUESTS)
        """The servers that answered the last requests, empty where one failed; the newest last."""
        self._names = names
        self._clock = clock

    def note_answer(self, request: str, *, port: int, reason: str) -> None:
        """Count a request that was answered by the server at this port."""
        server = self._names[port]
        self.answered[server] += 1
        self._note(Line(request=request, server=server, reason=reason))

    def note_failure(self, request: str, *, intent: str, reason: str) -> None:
        """Count a request that failed."""
        self.failed[intent] += 1
        self._note(Line(request=request, server=None, reason=reason))

    def _note(self, line: Line) -> None:
        self.recent.append(line.server or "")
        line.at = self._clock()
        for known in self.lines:
            same = (known.request, known.server, known.reason) == (line.request, line.server, line.reason)
            if same and line.at - known.at < ONE_AFTER_THE_OTHER:
                known.count, known.at = known.count + 1, line.at
                return
        self.lines.appendleft(line)


class CountRequests:
    """Middleware that counts the application's responses.

    Args:
        app: the next application.
        requests: the counters.

    """

    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(scope, message["status"], Headers(raw=message["headers"]))
            await send(message)

        try:
            await self._app(scope, receive, send_and_count)
        except Exception as error:
            self._fail(scope, type(error).__name__)
            raise

    def _count(self, scope: Scope, status: int, headers: Headers) -> None:
        if status >= LOWEST_FAILURE:
            self._fail(scope, f"status {status}")
        elif "X-Server-Port" in headers:  # only those that used the database
            self._requests.note_answer(_words(scope), port=int(headers["X-Server-Port"]), reason=headers["X-Reason"])

    def _fail(self, scope: Scope, reason: str) -> None:
        self._requests.note_failure(
            _words(scope), intent="read" if scope["method"] in READS else "write", reason=reason
        )


def _words(scope: Scope) -> str:
    return f"{scope['method']} {scope['path']}"

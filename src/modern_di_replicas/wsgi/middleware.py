"""Token in, token out: one WSGI middleware for every framework."""

import collections.abc
import contextvars
import typing
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from modern_di_replicas.cluster.background import background
from modern_di_replicas.cluster.waiting import complete
from modern_di_replicas.consistency.client import Client, enter
from modern_di_replicas.observability.request import DECISION, keep_decisions_in, timing_of
from modern_di_replicas.settings import ReplicationSettings
from modern_di_replicas.tokens.carrier import Carrier
from modern_di_replicas.tokens.validation import Tokens


STATE: typing.Final = "modern_di_replicas.state"
"""The key of the decision in the WSGI environment of a request, as `request.state.decision` in ASGI."""

Headers = list[tuple[str, str]]
Write = collections.abc.Callable[[bytes], object]


class TokenMiddleware:
    """Accepts the token of each request, and issues one in the response to a request that wrote.

    Args:
        app: the next application.
        settings: the carrier of tokens, if any.
        tokens: validates and creates them.

    """

    def __init__(self, app: WSGIApplication, settings: ReplicationSettings, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens
        self._carrier = Carrier(settings) if settings.replicas and settings.token_carrier is not None else None
        self._name = f"HTTP_{settings.token_name.upper().replace('-', '_')}"
        self._header = settings.token_name.lower().encode()
        self._sends_decision = settings.server_timing

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> collections.abc.Iterable[bytes]:
        """Serve a request."""
        texts = [] if self._carrier is None else self._carrier.read(self._read(environ))
        # The monitor's thread is used only where the servers have to be asked.
        run = background.run if self._tokens.asks_servers else complete
        client = Client(token=run(self._tokens.admit(texts)) if texts else None, is_request=True)
        request = _Request(self, client, environ)
        # The server reads the body after this returns, in its own context, where the client is not known.
        return request.serve(self._app, start_response)

    def _read(self, environ: WSGIEnvironment) -> collections.abc.Iterator[tuple[bytes, bytes]]:
        for name, key in ((b"cookie", "HTTP_COOKIE"), (self._header, self._name)):
            if (value := environ.get(key)) is not None:
                yield name, value.encode("latin-1")

    def headers(self, given: Headers, client: Client, environ: WSGIEnvironment) -> Headers:
        """Return the headers of a response at its start."""
        written = given
        if (decision := environ[STATE].get(DECISION)) is not None and self._sends_decision:
            written = [*written, ("server-timing", timing_of(decision))]
        if self._carrier is not None and client.wrote:
            token = background.run(self._tokens.of(client))
            if token is not None:
                before = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in written]
                after = self._carrier.write(before, self._tokens.encode(token), scheme=environ["wsgi.url_scheme"])
                written = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in after]
                self._tokens.note_sent()
        client.note_response()
        return written

    def note_end(self, client: Client) -> None:
        """Record the end of a response."""
        if self._carrier is not None and client.wrote:
            self._tokens.note_too_late()


class _Request:
    """One request: it runs in a context that knows its client, its body included."""

    def __init__(self, middleware: TokenMiddleware, client: Client, environ: WSGIEnvironment) -> None:
        self._middleware = middleware
        self._client = client
        self._environ = environ
        self._context = contextvars.copy_context()
        self._given: tuple[str, Headers] | None = None
        self._write: Write | None = None

    def serve(self, app: WSGIApplication, start_response: StartResponse) -> "_Body":
        state = self._environ.setdefault(STATE, {})

        def start(status: str, headers: Headers, failure: typing.Any = None) -> Write:  # noqa: ANN401  # as PEP 3333 has it
            if self._write is not None:  # the response has begun: the server handles this error of the application
                return start_response(status, headers, failure)
            self._given = status, headers
            return self._write_at_once

        def begin() -> None:
            if self._given is not None and self._write is None:
                status, headers = self._given
                self._write = start_response(status, self._middleware.headers(headers, self._client, self._environ))

        self._begin = begin
        # Not reset: the context ends with the request.
        self._context.run(enter, self._client)
        self._context.run(keep_decisions_in, state)
        parts = self._context.run(app, self._environ, typing.cast(StartResponse, start))
        # Not earlier: the application's work at the end of a request, such as a commit, is done now.
        begin()
        return _Body(parts, self)

    def _write_at_once(self, part: bytes) -> object:
        self._begin()
        return typing.cast(Write, self._write)(part)

    def run(self, function: collections.abc.Callable[..., typing.Any], *args: typing.Any) -> typing.Any:  # noqa: ANN401
        """Call a function in the context of the request."""
        return self._context.run(function, *args)

    def next_part(self, parts: collections.abc.Iterator[bytes]) -> bytes | None:
        """Return the next part of the body; None at its end."""
        part: bytes | None = self._context.run(next, parts, None)
        self._begin()  # a generator begins with its first part
        return part

    def end(self) -> None:
        """Record the end of the response."""
        if self._write is not None:
            self._middleware.note_end(self._client)


class _Body:
    """The body of a response, whose parts are produced in the context of its request."""

    def __init__(self, parts: collections.abc.Iterable[bytes], request: _Request) -> None:
        self._parts = parts
        self._request = request

    def __iter__(self) -> collections.abc.Iterator[bytes]:
        parts = self._request.run(iter, self._parts)
        while (part := self._request.next_part(parts)) is not None:
            yield part

    def close(self) -> None:
        """Close the body, as a server does at the end of every request."""
        try:
            if (close := getattr(self._parts, "close", None)) is not None:
                self._request.run(close)
        finally:
            self._request.end()

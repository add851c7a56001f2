"""Token in, token out: one ASGI middleware for every framework."""

import collections.abc
import typing

from modern_di_replicas.client import Client, RequestOf
from modern_di_replicas.settings import ReplicationSettings
from modern_di_replicas.tokens import Tokens


Scope = collections.abc.MutableMapping[str, typing.Any]
Message = collections.abc.MutableMapping[str, typing.Any]
Receive = collections.abc.Callable[[], collections.abc.Awaitable[Message]]
Send = collections.abc.Callable[[Message], collections.abc.Awaitable[None]]
App = collections.abc.Callable[[Scope, Receive, Send], collections.abc.Awaitable[None]]


class Carrier:
    """Carries the tokens of clients in the headers of HTTP, as a cookie or as a header of its own.

    Args:
        settings: which of the two, and its name.

    """

    def __init__(self, settings: ReplicationSettings) -> None:
        self._attributes = f"Max-Age={settings.token_seconds}; Path=/; HttpOnly; SameSite=Lax"
        self._name = settings.token_name
        self._header = settings.token_name.lower().encode()
        self._is_cookie = settings.token_carrier == "cookie"  # noqa: S105  # a kind, not a secret

    def read(self, headers: collections.abc.Iterable[tuple[bytes, bytes]]) -> list[str]:
        """Return every text a request carries."""
        if not self._is_cookie:
            return [value.decode("latin-1") for name, value in headers if name == self._header]
        return [
            value.strip()
            for name, line in headers
            if name == b"cookie" and self._header in line.lower()
            for pair in line.decode("latin-1").split(";")
            for key, _, value in [pair.partition("=")]
            if key.strip() == self._name
        ]

    def write(self, text: str, *, scheme: str) -> tuple[bytes, bytes]:
        """Return the header of a response that hands a token out."""
        if not self._is_cookie:
            return self._header, text.encode()
        return b"set-cookie", f"{self._name}={text}; {self._attributes}{'; Secure' * (scheme == 'https')}".encode()


class TokenDesk:
    """Stands at the door of an application: knows its tokens and their carrier while it runs."""

    def __init__(self) -> None:
        self.tokens: Tokens | None = None
        """Judges and makes tokens; None while the application does not run, or does without."""
        self.carrier: Carrier | None = None

    def open(self, settings: ReplicationSettings, tokens: Tokens) -> None:
        """Take tokens in and hand them out from now on, if the settings say so."""
        if settings.token_carrier is not None:
            self.tokens, self.carrier = tokens, Carrier(settings)

    def close(self) -> None:
        """Let every request pass from now on."""
        self.tokens = self.carrier = None


class TokenMiddleware:
    """Takes the token of each request in, and hands one out with the response to a request that wrote.

    Args:
        app: the application behind it.
        desk: knows the tokens.

    """

    def __init__(self, app: App, desk: TokenDesk) -> None:
        self._app = app
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tokens, carrier = self._desk.tokens, self._desk.carrier
        if tokens is None or carrier is None or scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        texts = carrier.read(scope["headers"])
        client = Client(token=await tokens.admit(texts) if texts else None, is_request=True)
        has_started = False

        async def send_with_token(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                token = await tokens.of(client) if client.wrote else None
                if token is not None:
                    header = carrier.write(tokens.encode(token), scheme=scope["scheme"])
                    message = {**message, "headers": [*message.get("headers", ()), header]}
                client.wrote = False
            await send(message)

        with RequestOf(client):
            await self._app(scope, receive, send_with_token)
        if client.wrote and has_started:
            tokens.too_late += 1

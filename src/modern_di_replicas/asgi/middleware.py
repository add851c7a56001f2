"""Token in, token out: one ASGI middleware for every framework."""

from modern_di_replicas.asgi.decisions import DecisionMiddleware
from modern_di_replicas.asgi.protocol import App, Message, Receive, Scope, Send
from modern_di_replicas.consistency.client import Client, request_of
from modern_di_replicas.settings import ReplicationSettings
from modern_di_replicas.tokens.carrier import Carrier
from modern_di_replicas.tokens.validation import Tokens


class TokenState:
    """The tokens of an application and their carrier, while it runs."""

    def __init__(self) -> None:
        self.tokens: Tokens | None = None
        """Validates and creates tokens; None while the application does not run, or without tokens."""
        self.carrier: Carrier | None = None
        self.server_timing = False
        """Whether responses say which server was used."""

    def open(self, settings: ReplicationSettings, tokens: Tokens) -> None:
        """Accept and issue tokens from now on, if the settings say so."""
        self.server_timing = settings.server_timing
        if settings.token_carrier is not None:
            self.tokens, self.carrier = tokens, Carrier(settings)

    def close(self) -> None:
        """Ignore tokens from now on."""
        self.tokens = self.carrier = None


class TokenMiddleware:
    """Accepts the token of each request, and issues one in the response to a request that wrote.

    Args:
        app: the next application.
        state: the tokens of the application.

    """

    def __init__(self, app: App, state: TokenState) -> None:
        self._app = self._decisions = DecisionMiddleware(app)
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tokens, carrier = self._state.tokens, self._state.carrier
        self._decisions.sends_header = self._state.server_timing
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
                    given = message.get("headers", ())
                    headers = carrier.write(given, tokens.encode(token), scheme=scope["scheme"])
                    message = {**message, "headers": headers}
                    tokens.note_sent()
                client.note_response()
            await send(message)

        with request_of(client):
            await self._app(scope, receive, send_with_token)
        if client.wrote and has_started:
            tokens.note_too_late()

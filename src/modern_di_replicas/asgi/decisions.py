"""Keep the decision of a request in its state and, if the settings say so, in a response header."""

from modern_di_replicas.asgi.protocol import App, Message, Receive, Scope, Send
from modern_di_replicas.observability.request import DECISION, decisions_in, timing_of


class DecisionMiddleware:
    """Keeps the decision of each request in its state: `request.state.decision`.

    Args:
        app: the next application.

    """

    def __init__(self, app: App) -> None:
        self._app = app
        self.sends_header = False
        """Whether a response says in a `Server-Timing` header which server was used, and why."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})

        async def send_with_header(message: Message) -> None:
            decision = state.get(DECISION)
            if message["type"] == "http.response.start" and decision is not None:
                header = (b"server-timing", timing_of(decision).encode("latin-1"))
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        with decisions_in(state):
            await self._app(scope, receive, send_with_header if self.sends_header else send)

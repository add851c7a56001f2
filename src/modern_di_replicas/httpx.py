"""HTTPX: a called service reads its caller's writes, and returns the token of its own."""

import collections.abc
import typing

import httpx
from modern_di import Container

from modern_di_replicas.consistency.client import current_client, known_client
from modern_di_replicas.settings import ReplicationSettings
from modern_di_replicas.tokens.validation import Tokens


Hook = collections.abc.Callable[[typing.Any], None]
AsyncHook = collections.abc.Callable[[typing.Any], collections.abc.Awaitable[None]]


def event_hooks(container: Container) -> dict[str, list[AsyncHook]]:
    """Return the hooks of an asynchronous client: `httpx.AsyncClient(event_hooks=event_hooks(container))`.

    They send the token of the current client with each request, as a cookie or header, as the settings say. They accept
    the token of the response: later reads here include the writes of the service, and so does the token of the response
    to the current request. This is for services that share a database and the secret; a token of another database is
    ignored.

    Args:
        container: the application's.

    """
    tokens = _Tokens(container)

    async def send(request: httpx.Request) -> None:  # an asynchronous client awaits its hooks
        tokens.send(request.headers)

    async def take(response: httpx.Response) -> None:
        tokens.take(response.headers)

    return {"request": [send], "response": [take]}


def sync_event_hooks(container: Container) -> dict[str, list[Hook]]:
    """Return the hooks of a synchronous client: `httpx.Client(event_hooks=sync_event_hooks(container))`.

    See `event_hooks`.

    Args:
        container: the application's.

    """
    tokens = _Tokens(container)
    return {
        "request": [lambda request: tokens.send(request.headers)],
        "response": [lambda response: tokens.take(response.headers)],
    }


class _Tokens:
    """Carries tokens in the headers of a client's requests and responses."""

    def __init__(self, container: Container) -> None:
        self._container = container

    def send(self, headers: httpx.Headers) -> None:
        client, settings = known_client(), self._container.resolve(ReplicationSettings)
        if client is None or settings.token_carrier is None:
            return
        if settings.token_carrier == "cookie":  # noqa: S105  # a kind, not a secret
            _remove_cookie(headers, settings.token_name)  # its cookie jar has an earlier token
        tokens = self._container.resolve(Tokens)
        token = tokens.everything() if client.position_unknown else client.token
        if token is None:
            return
        text = tokens.encode(token)
        if settings.token_carrier == "header":  # noqa: S105
            headers[settings.token_name] = text
        else:
            cookie = f"{settings.token_name}={text}"
            headers["cookie"] = f"{headers['cookie']}; {cookie}" if "cookie" in headers else cookie

    def take(self, headers: httpx.Headers) -> None:
        settings = self._container.resolve(ReplicationSettings)
        if settings.token_carrier == "header":  # noqa: S105
            texts = headers.get_list(settings.token_name)
        elif settings.token_carrier == "cookie":  # noqa: S105
            pairs = [_pair(line.partition(";")[0]) for line in headers.get_list("set-cookie")]
            texts = [value for name, value in pairs if name == settings.token_name]
        else:
            texts = []
        for text in texts:
            token = self._container.resolve(Tokens).decode(text)
            if token is not None:
                current_client().note_token(token)


def _remove_cookie(headers: httpx.Headers, name: str) -> None:
    if "cookie" in headers:
        others = [pair for pair in headers["cookie"].split("; ") if _pair(pair)[0] != name]
        headers["cookie"] = "; ".join(others)
        if not others:
            del headers["cookie"]


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(), value.strip()

"""The requests of the demo. Their results are in the responses."""

import dataclasses
import json
import shlex
import typing

import httpx

from modern_di_replicas.demo.report import Report


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Exchange:
    """A request, and the report in its response."""

    method: str
    path: str
    status: int
    report: Report


class RequestView(typing.Protocol):
    """Shows the requests."""

    def show_exchange(self, exchange: Exchange) -> None: ...


class Visitor:
    """Sends requests to the application, and shows each of them.

    Args:
        client: knows the address of the application, and keeps its cookies as a browser does.
        view: shows every request at once.

    """

    def __init__(self, *, client: httpx.AsyncClient, view: RequestView) -> None:
        self.exchanges: list[Exchange] = []
        self._client = client
        self._view = view

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: object = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """Send one request.

        Raises:
            httpx.HTTPStatusError: the application failed.

        """
        response = await self._client.request(method, path, params=query, json=body, headers=headers)
        if response.is_server_error:
            response.raise_for_status()
        exchange = Exchange(
            method=method, path=path, status=response.status_code, report=Report.from_headers(response.headers)
        )
        self.exchanges.append(exchange)
        self._view.show_exchange(exchange)
        return response


async def visit(visitor: Visitor) -> int:
    """Send the requests, without waiting for the replicas; return the id of a user that exists afterwards."""
    ada = await _create(visitor, "Ada Byron", "ada@example.com")
    await visitor.send("GET", f"/users/{ada}")
    grace = await _create(visitor, "Grace Hopper", "grace@example.com")
    await visitor.send("GET", f"/users/{grace}")
    await visitor.send("HEAD", f"/users/{ada}")
    await visitor.send("GET", "/me", headers={"X-User-Id": str(ada)})
    await visitor.send("GET", f"/visits/{ada}")
    await visitor.send("POST", "/search", body={"words": "a"})
    await visitor.send("PUT", f"/users/{ada}", body={"name": "Ada Lovelace", "email": "ada@example.com"})
    await visitor.send("GET", f"/users/{ada}")
    await visitor.send("GET", "/newest")
    await visitor.send("GET", "/newest")
    await visitor.send("GET", "/taken", query={"email": "ada@example.com"})
    await visitor.send("DELETE", f"/users/{grace}")
    await visitor.send("GET", f"/users/{grace}")
    return ada


async def _create(visitor: Visitor, name: str, email: str) -> int:
    response = await visitor.send("POST", "/users", body={"name": name, "email": email})
    user_id: int = response.json()["id"]
    return user_id


def curl_lines(url: str, user_id: int) -> list[str]:
    """Return shell commands that send requests to the application.

    Args:
        url: the address of the application.
        user_id: an existing user.

    """
    new_user = {"name": "Alan Turing", "email": "alan@example.com"}
    changed_user = {"name": "Countess of Lovelace", "email": "ada@example.com"}
    return [
        _curl(f"{url}/users/{user_id}"),
        _curl(f"{url}/users/{user_id}", "--head"),
        _curl(f"{url}/users", body=new_user),
        _curl(f"{url}/me", "--header", f"X-User-Id: {user_id}"),
        _curl(f"{url}/visits/{user_id}"),
        _curl(f"{url}/search", body={"words": "a"}),
        _curl(f"{url}/newest"),
        _curl(f"{url}/taken?email=ada@example.com"),
        _curl(f"{url}/users/{user_id}", "--request", "PUT", body=changed_user),
        _curl(f"{url}/users/{user_id}", "--request", "DELETE"),
    ]


def _curl(url: str, *options: str, body: object = None) -> str:
    data = () if body is None else ("--header", "Content-Type: application/json", "--data", json.dumps(body))
    return shlex.join(["curl", "--include", url, *options, *data])

"""A client of the application with a keep-alive connection to each worker and one cookie jar."""

import asyncio
import http
import typing


class Visitor:
    """Sends requests, one at a time. A general HTTP client would take more time than the servers.

    Args:
        name: the name of the client.

    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.worker = 0
        """The worker of the last response: the number in the response, or its port."""
        self._cookies: dict[str, str] = {}
        self._connections: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def request(self, port: int, method: str, path: str) -> tuple[int, bytes]:
        """Send a request and return the status and the body.

        Raises:
            OSError: the application cannot be reached, or closed the connection.
            asyncio.IncompleteReadError: it closed the connection half-way.

        """
        self.worker = port
        try:
            return await self._exchange(port, method, path)
        except BaseException:
            self._close(port)  # a late response must not be taken for the next one
            raise

    async def _exchange(self, port: int, method: str, path: str) -> tuple[int, bytes]:
        if port not in self._connections:
            self._connections[port] = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = self._connections[port]
        lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", "content-length: 0", f"x-client: {self.name}"]
        if self._cookies:
            lines.append(f"cookie: {'; '.join(f'{name}={value}' for name, value in self._cookies.items())}")
        writer.write("\r\n".join([*lines, "", ""]).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in head[1:])]
        length = next(int(value) for name, value in headers if name == "content-length")
        body = await reader.readexactly(length)
        for name, value in headers:
            if name == "set-cookie":
                self._keep(value)
            elif name == "x-worker":
                self.worker = int(value)
        status = int(head[0].split(" ")[1])
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR or ("connection", "close") in headers:
            self._close(port)  # as uvicorn does after an unhandled error
        return status, body

    def _keep(self, cookie: str) -> None:
        name, _, value = cookie.partition(";")[0].partition("=")
        self._cookies[name] = value

    def _close(self, port: int) -> None:
        if port in self._connections:
            self._connections.pop(port)[1].close()

    async def __aenter__(self) -> typing.Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for port in list(self._connections):
            self._close(port)

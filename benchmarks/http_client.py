"""A minimal HTTP/1.1 client: one keep-alive connection, and one set of cookies.

A general client takes more time than the measured servers.
"""

import asyncio
import contextlib
import typing


HEAD_END: typing.Final = b"\r\n\r\n"
LENGTH: typing.Final = b"content-length:"
COOKIE: typing.Final = b"set-cookie:"


class Client(asyncio.Protocol):
    """One client of an application.

    Args:
        port: where the application listens, on this machine.

    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._cookies: dict[bytes, bytes] = {}
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    async def request(self, method: str, path: str) -> tuple[int, bytes]:
        """Send a request and return the status and the body.

        Raises:
            OSError: the application cannot be reached, or closed the connection.

        """
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            self._transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", self._port)
        cookies = b"; ".join(name + b"=" + value for name, value in self._cookies.items())
        head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n".encode()
        self._received = b""
        self._answer = loop.create_future()
        self._transport.write(head + (b"cookie: " + cookies + b"\r\n" if cookies else b"") + b"\r\n")
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.close()  # a late response must not be taken for the next one
            raise

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(HEAD_END)
        if not found or self._answer is None or self._answer.done():
            return
        lowered = head.lower()
        start = lowered.find(LENGTH) + len(LENGTH)
        if len(body) >= int(lowered[start:].partition(b"\r\n")[0]):
            if COOKIE in lowered:
                self._keep_cookies(head)
            self._answer.set_result((int(head[9:12]), body))

    def _keep_cookies(self, head: bytes) -> None:
        for line in head.split(b"\r\n"):
            if line.lower().startswith(COOKIE):
                name, _, value = line[len(COOKIE) :].split(b";")[0].strip().partition(b"=")
                self._cookies[name] = value

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError(str(exc)))
        with contextlib.suppress(asyncio.CancelledError):
            self._transport = None

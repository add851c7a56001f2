"""A proxy that counts round trips and can drop traffic; the tests use it as well."""

import asyncio
import contextlib
import typing


READY_FOR_QUERY: typing.Final = b"Z\x00\x00\x00\x05"
"""The message that ends a server's answer: one for each round trip, of the simple and of the extended protocol.

https://www.postgresql.org/docs/current/protocol-message-formats.html
"""


class Wire:
    """Forwards between a client and a server on this machine.

    Args:
        server_port: where the server listens.

    """

    def __init__(self, server_port: int) -> None:
        self.round_trips = 0
        self.is_open = asyncio.Event()
        """Cleared, no traffic passes, and nothing is refused."""
        self.is_open.set()
        self._server_port = server_port
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> typing.Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def accepted(self) -> int:
        """Return the number of accepted connections."""
        return len(self._tasks)

    def cut(self) -> None:
        """Abort the open connections, like a restarting proxy; new ones are accepted."""
        for task in self._tasks:
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connecting = asyncio.create_task(self._connect(reader, writer))
        # A test may end while connections are open or blocked: none may outlive its event loop.
        connecting.add_done_callback(lambda _: writer.transport.abort())
        self._tasks.add(connecting)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.is_open.wait()
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        try:
            await asyncio.gather(self._pump(reader, server_writer), self._pump(server_reader, writer, counts=True))
        finally:
            server_writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, counts: bool = False) -> None:
        tail = b""
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                if counts:
                    # The message may be split.
                    seen = tail + data
                    self.round_trips += seen.count(READY_FOR_QUERY)
                    tail = seen[-len(READY_FOR_QUERY) + 1 :]
                await self.is_open.wait()
                sink.write(data)
                await sink.drain()
        sink.close()
        with contextlib.suppress(ConnectionError):
            await sink.wait_closed()

"""A proxy that counts what goes over the wire, and can swallow it."""

import asyncio
import contextlib
import typing


SYNC = b"S\x00\x00\x00\x04"
"""The message that ends each request of the extended query protocol, and makes the server answer."""


class Wire:
    """Stands between a client and a server on this machine.

    Args:
        server_port: where the server listens.

    """

    def __init__(self, server_port: int) -> None:
        self.requests = 0
        """How many requests the clients have sent: each is one round trip."""
        self.is_open = asyncio.Event()
        """Cleared, it drops into silence: nothing arrives, nothing is refused."""
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

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connecting = asyncio.create_task(self._connect(reader, writer))
        # A test may end while connections are open, or wait to be let through: none may outlive its event loop.
        connecting.add_done_callback(lambda _: writer.transport.abort())
        self._tasks.add(connecting)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.is_open.wait()
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        try:
            await asyncio.gather(
                self._pump(reader, server_writer, counts=True), self._pump(server_reader, writer, counts=False)
            )
        finally:
            server_writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, counts: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                if counts:
                    self.requests += data.count(SYNC)
                await self.is_open.wait()
                sink.write(data)
                await sink.drain()
        sink.close()
        with contextlib.suppress(ConnectionError):
            await sink.wait_closed()

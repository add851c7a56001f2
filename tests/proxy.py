"""A TCP proxy in front of a server that can hold a connection at a chosen message and close it there."""

import asyncio
import contextlib
import types
import typing


class Proxy:
    """Relays connections to a port of this machine.

    Args:
        port: where the server listens.

    """

    def __init__(self, port: int) -> None:
        self.port = 0
        """Where the proxy listens."""
        self.reached = asyncio.Event()
        """Set when a connection is held."""
        self._to = port
        self._marker: bytes | None = None
        self._holds_answer = False
        self._released = asyncio.Event()
        self._held: tuple[asyncio.StreamWriter, asyncio.StreamWriter] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    def hold(self, marker: bytes, *, answer: bool = False) -> None:
        """Hold the next connection whose client sends a marker: before that message, or before its answer."""
        self.reached.clear()
        self._released.clear()
        self._marker, self._holds_answer = marker, answer

    def release(self) -> None:
        """Forward the held messages."""
        self._released.set()

    def cut(self) -> None:
        """Close the held connection on both sides; its held messages are lost."""
        assert self._held is not None
        for writer in self._held:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError):
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._to)
            ends = (writer, upstream)
            answers = asyncio.ensure_future(self._answer(upstream_reader, ends))
            try:
                await self._ask(reader, ends)
            finally:
                answers.cancel()
                for end in ends:
                    end.transport.abort()
        self._tasks.discard(task)

    async def _ask(self, reader: asyncio.StreamReader, ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        while data := await reader.read(1 << 16):
            if self._marker is not None and self._marker in data:
                self._marker, self._held = None, ends
                if not self._holds_answer:
                    self.reached.set()
                    await self._released.wait()
            ends[1].write(data)

    async def _answer(
        self, reader: asyncio.StreamReader, ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self._held is ends and self._holds_answer:
                    self.reached.set()
                    await self._released.wait()
                ends[0].write(data)
        ends[0].close()

    async def __aenter__(self) -> typing.Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        self.release()
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

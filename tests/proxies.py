"""A TCP proxy that can drop the state of its connections, as a NAT, a firewall or a load balancer does."""

import asyncio
import collections.abc
import contextlib
import typing

from sqlalchemy import make_url


class SilentProxy:
    """Forwards to a server until it drops its state: connections then stay open without any traffic."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.accepted = 0
        """Number of accepted connections."""
        self.targets = [port]
        """The targets of its connections, in turn: with several, it is a reader endpoint."""
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._is_cut = False

    def forget(self) -> None:
        """Forward nothing on existing connections; new ones work."""
        for pump in self._pumps:
            pump.cancel()

    def cut(self) -> None:
        """Forward nothing, also on new connections."""
        self._is_cut = True
        self.forget()

    def mend(self) -> None:
        self._is_cut = False

    def url(self, url: str) -> str:
        """Return the URL of a server with the address of this proxy."""
        return make_url(url).set(port=self.port).render_as_string(hide_password=False)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self.targets[self.accepted % len(self.targets)]
        self.accepted += 1
        self._writers.append(writer)
        if self._is_cut:
            return
        try:
            there, to_server = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        self._writers.append(to_server)
        for source, target in ((reader, to_server), (there, writer)):
            pump = asyncio.create_task(self._pump(source, target))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    @classmethod
    @contextlib.asynccontextmanager
    async def before(cls, port: int) -> collections.abc.AsyncIterator[typing.Self]:
        """Start a proxy in front of a server on this machine."""
        proxy = cls(port)
        server = await asyncio.start_server(proxy._accept, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            for writer in proxy._writers:
                writer.close()
            proxy.forget()
            await asyncio.gather(*proxy._pumps, return_exceptions=True)

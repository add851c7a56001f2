"""The application behind a real HTTP server, in this event loop."""

import asyncio
import collections.abc
import contextlib
import socket
import typing

import fastapi
import uvicorn

from modern_di_replicas.errors import ConfigurationError


HOST: typing.Final = "127.0.0.1"
GRACE_SECONDS: typing.Final = 2


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> collections.abc.Iterator[None]:
        """Leave the signals to the demo, which ends more than this server."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.is_up.set()


@contextlib.asynccontextmanager
async def serving(app: fastapi.FastAPI, *, port: int) -> collections.abc.AsyncIterator[str]:
    """Serve an application over HTTP, and yield the address; leaving the block ends the server.

    Args:
        app: the application; its lifespan is that of the block.
        port: 0 for a free one.

    Raises:
        ConfigurationError: the port cannot be used.

    """
    listener = _listen(port)
    # The lifespan is entered here, so that an error of the application's start is raised to the caller.
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    with contextlib.closing(listener):
        async with app.router.lifespan_context(app):
            server = _Server(config)
            serving_task = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                await server.is_up.wait()
                yield f"http://{HOST}:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True
                await serving_task


def _listen(port: int) -> socket.socket:
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        reason = error.strerror
    else:
        # asyncio sets it only for its own sockets; without it each answer is delayed by 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    raise ConfigurationError(field="--port", value=port, remedy=f"{reason}; choose another one, or 0 for a free one")

import collections.abc
import contextlib
import socket

import fastapi
import httpx
import pytest

from modern_di_replicas import ConfigurationError
from modern_di_replicas.demo.server import HOST, serving


async def test_an_application_is_served_over_http_while_the_block_runs() -> None:
    """It answers on its address, within its lifespan, and not afterwards."""
    events: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> collections.abc.AsyncIterator[None]:
        events.append("start")
        yield
        events.append("stop")

    app = fastapi.FastAPI(lifespan=lifespan)

    @app.get("/")
    async def root() -> str:
        events.append("request")
        return "hello"

    async with httpx.AsyncClient(trust_env=False) as client:
        async with serving(app, port=0) as url:
            assert (await client.get(url)).json() == "hello"
        assert events == ["start", "request", "stop"]
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def test_the_port_can_be_chosen() -> None:
    """The address has the requested port."""
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    async with serving(fastapi.FastAPI(), port=port) as url:
        assert url == f"http://{HOST}:{port}"


async def test_a_port_that_is_in_use_is_a_configuration_error() -> None:
    """The error names the option and the port."""
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigurationError) as caught:
            async with serving(fastapi.FastAPI(), port=port):
                pytest.fail("it started")  # pragma: no cover
    assert (caught.value.field, caught.value.value) == ("--port", port)

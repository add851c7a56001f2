import asyncio
import collections.abc
import contextlib

import pytest

from benchmarks.http_client import Client


@contextlib.asynccontextmanager
async def answering(*pieces: bytes) -> collections.abc.AsyncIterator[tuple[int, list[bytes]]]:
    """Serve the same response in pieces to every request; yield the port and the requests."""
    requests: list[bytes] = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while request := await reader.read(65536):
            requests.append(request)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)  # send the next piece as a separate packet

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], requests
        for writer in writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def test_an_answer_may_come_in_pieces() -> None:
    """TCP may split a response at any byte."""
    async with answering(b"HTTP/1.1 201 Created\r\nContent-Le", b"ngth: 4\r\n\r\nab", b"cd") as (port, _):
        client = Client(port)
        assert await client.request("GET", "/") == (201, b"abcd")
        client.close()


async def test_a_client_sends_the_cookies_it_received() -> None:
    """INVARIANT: without cookies no contender could know what a client has written."""
    head = b"HTTP/1.1 200 OK\r\nset-cookie: token=a; Path=/\r\nset-cookie: b=2\r\ncontent-length: 0\r\n\r\n"
    async with answering(head) as (port, requests):
        client = Client(port)
        await client.request("GET", "/")
        await client.request("GET", "/")
        client.close()
    assert b"cookie" not in requests[0]
    assert b"cookie: token=a; b=2\r\n" in requests[1]


async def test_an_application_that_hangs_up_is_an_error() -> None:
    """A closed connection must not count as a response."""
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        client = Client(server.sockets[0].getsockname()[1])
        with pytest.raises(ConnectionError):
            await client.request("GET", "/")

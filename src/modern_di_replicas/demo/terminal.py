"""Read lines from the terminal or a pipe while the event loop runs."""

import asyncio
import collections.abc
import contextlib
import io
import os
import typing


CHUNK: typing.Final = 4096
LONGEST_LINE: typing.Final = 1000


Take = collections.abc.Callable[[str], collections.abc.Awaitable[None]]


@contextlib.asynccontextmanager
async def typed_lines(source: typing.TextIO | None, take: Take) -> collections.abc.AsyncIterator[None]:
    """Pass on each line during the block, one after the other; the end of the source is ignored.

    Args:
        source: a terminal or a pipe. Nothing is read from a file, a closed stream or None.
        take: awaited with each line.

    """
    lines: asyncio.Queue[str] = asyncio.Queue()
    with _reading(source, lines):
        taking = asyncio.create_task(_take_all(lines, take))
        try:
            yield
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)


async def _take_all(lines: asyncio.Queue[str], take: Take) -> None:
    while True:
        await take(await lines.get())


@contextlib.contextmanager
def _reading(source: typing.TextIO | None, lines: asyncio.Queue[str]) -> collections.abc.Iterator[None]:
    loop = asyncio.get_running_loop()
    try:
        descriptor = -1 if source is None else source.fileno()
    except (io.UnsupportedOperation, ValueError):  # a replacement, or closed
        descriptor = -1
    rest = b""

    def read() -> None:
        nonlocal rest
        # The descriptor stays blocking: a terminal shares that flag with the output. One read never blocks here.
        try:
            chunk = os.read(descriptor, CHUNK)
        except OSError:  # the terminal is gone
            chunk = b""
        if not chunk:
            loop.remove_reader(descriptor)
        *whole, rest = (rest + chunk).split(b"\n")
        rest = rest[-LONGEST_LINE:]
        for line in whole:
            lines.put_nowait(line.decode(errors="replace"))

    try:
        if descriptor >= 0:
            loop.add_reader(descriptor, read)
    except PermissionError:  # epoll: it is a file, which is always readable
        descriptor = -1
    try:
        yield
    finally:
        if descriptor >= 0:
            loop.remove_reader(descriptor)

"""Lines from a terminal or a pipe, read while the event loop runs."""

import asyncio
import errno
import io
import os
import pathlib
import types
import typing

import pytest

from modern_di_replicas.demo import terminal
from modern_di_replicas.demo.terminal import typed_lines
from tests.waiting import until


class Typist:
    """The other end of a pipe or a terminal."""

    def __init__(self, source: int, target: int) -> None:
        self.source = os.fdopen(source)
        self._target = target

    def type(self, text: str) -> None:
        os.write(self._target, text.encode())

    def leave(self) -> None:
        os.close(self._target)


async def some_turns() -> None:
    """Let the event loop read the available input."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture(params=["pipe", "terminal"])
def typist(request: pytest.FixtureRequest) -> typing.Iterator[Typist]:
    if request.param == "pipe":
        source, target = os.pipe()
    else:
        target, source = os.openpty()
    typing_one = Typist(source, target)
    yield typing_one
    typing_one.source.close()


async def test_lines_are_passed_on_as_they_arrive_and_the_end_changes_nothing(typist: Typist) -> None:
    """A line in two parts is one line; the event loop never blocks on input."""
    lines: list[str] = []

    async def take(line: str) -> None:
        await asyncio.sleep(0)
        lines.append(line.rstrip("\r"))

    async with typed_lines(typist.source, take):
        assert os.get_blocking(typist.source.fileno())  # the output may be the same terminal
        typist.type("freeze rep")
        await some_turns()
        assert lines == []
        typist.type("lica-1\nthaw\n")
        await until(lambda: lines == ["freeze replica-1", "thaw"])
        typist.leave()
        await some_turns()
        assert lines == ["freeze replica-1", "thaw"]


async def test_input_without_line_breaks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that writes without a line break does not fill the memory."""
    monkeypatch.setattr(terminal, "LONGEST_LINE", 4)
    source, target = os.pipe()
    lines: list[str] = []

    async def take(line: str) -> None:
        lines.append(line)

    with os.fdopen(source) as stream, os.fdopen(target, "w") as written:
        async with typed_lines(stream, take):
            written.write("x" * 1000)
            written.flush()
            await some_turns()
            written.write("\n")
            written.flush()
            await until(lambda: lines == ["xxxx"])


async def test_a_file_or_a_closed_stream_is_not_read(tmp_path: pathlib.Path) -> None:
    """A file is always readable, so it cannot be waited for; a closed stream has no descriptor."""
    (tmp_path / "lines").write_text("crash primary\n")
    closed = (tmp_path / "lines").open()
    closed.close()
    taken: list[str] = []

    async def take(line: str) -> None:
        taken.append(line)

    with (tmp_path / "lines").open() as file:
        for source in (file, closed, None, io.StringIO("crash primary\n")):
            async with typed_lines(source, take):
                await some_turns()
    assert taken == []


async def test_a_closed_terminal_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read error ends the input, not the demo."""
    reads: list[int] = []

    def read(descriptor: int, _: int) -> bytes:
        reads.append(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def take(_: str) -> None: ...

    source, target = os.pipe()
    with os.fdopen(source) as stream, os.fdopen(target, "w") as written, monkeypatch.context() as patch:
        patch.setattr(terminal, "os", types.SimpleNamespace(read=read))
        async with typed_lines(stream, take):
            written.write("thaw\n")
            written.flush()
            await until(lambda: bool(reads))
            await some_turns()
    assert reads == [source]

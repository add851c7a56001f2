"""A headless Chromium, controlled over its DevTools protocol: https://chromedevtools.github.io/devtools-protocol/.

The commands go through two pipes as JSON, so neither a browser library nor a websocket is needed.
"""

import asyncio
import base64
import collections.abc
import contextlib
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
import typing

import pytest

from tests.waiting import until


PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60
WITH_PIPES = """
import fcntl, os, sys
ours = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 10) for each in sys.argv[1:3]]
os.dup2(ours[0], 3)
os.dup2(ours[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Starts a program that reads from descriptor 3 and writes to 4, as the browser does."""

LIMIT = 64 * 1024 * 1024
"""Bytes of the longest answer: a screenshot."""


class Page:
    """A tab.

    Args:
        reader: receives the answers of the browser.
        writer: sends the commands.

    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._session: dict[str, str] = {}

    async def open(self, url: str, *, dark: bool = False) -> None:
        """Open an address in a new tab."""
        self._session = {}
        target = (await self.send("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        await self.send("Emulation.setDeviceMetricsOverride", width=1000, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])
        await self.send("Page.navigate", url=url)

    async def evaluate(self, script: str) -> typing.Any:
        """Return the value of a JavaScript expression."""
        answer = await self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true.

        Raises:
            TimeoutError: it is not true in time.

        """

        async def holds() -> bool:
            return bool(await self.evaluate(condition))

        await until(holds)

    async def click(self, selector: str) -> None:
        """Move the mouse to an element and click on it."""
        box = await self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView();"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.send(
                "Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", buttons=1, clickCount=1
            )

    async def screenshot(self) -> bytes:
        """Return a picture of the page, as PNG."""
        answer = await self.send("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])

    async def send(self, method: str, **params: object) -> typing.Any:
        """Send one command, and return its answer."""
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": params, **self._session}
        self._writer.write(json.dumps(command).encode() + b"\0")
        async with asyncio.timeout(SECONDS):
            await self._writer.drain()
            while True:
                answer = json.loads((await self._reader.readuntil(b"\0"))[:-1])
                if answer.get("id") == number:
                    assert "error" not in answer, answer
                    return answer["result"]


@contextlib.asynccontextmanager
async def chromium() -> collections.abc.AsyncIterator[Page]:
    """Start a browser, or skip the test if there is none."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("needs Chromium (Debian's package `chromium`)")
    commands, to_browser = os.pipe()
    from_browser, answers = os.pipe()
    profile = tempfile.mkdtemp(prefix="tests-of-chromium-")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WITH_PIPES, str(commands), str(answers), program, "--remote-debugging-pipe"),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
        *("--no-first-run", "--no-proxy-server", f"--user-data-dir={profile}"),
        pass_fds=(commands, answers),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(commands)
    os.close(answers)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LIMIT)
    reading, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(from_browser, "rb")
    )
    writing, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(to_browser, "wb"))
    try:
        yield Page(reader, asyncio.StreamWriter(writing, protocol, None, loop))
    finally:
        writing.close()
        reading.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        shutil.rmtree(profile, ignore_errors=True)

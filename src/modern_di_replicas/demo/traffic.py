"""Clients that continuously read and write, and the result of each request."""

import asyncio
import collections
import collections.abc
import contextlib
import dataclasses
import itertools
import time
import typing

import httpx

from modern_di_replicas.demo.report import Report


READERS: typing.Final = 4
PAUSE: typing.Final = 0.03
"""Seconds between two requests of one client."""

KEPT: typing.Final = 100_000
"""The number of stored answers."""

ADA: typing.Final = {"name": "Ada Lovelace", "email": "ada@example.com"}

TIMEOUT: typing.Final = 30.0
"""Seconds a client waits for an answer: longer than any fault may take."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Answer:
    """The result of one request."""

    server: str
    """The role of the server at that moment, and its port; empty when the request failed."""
    port: int | None
    """From the server; None when the request failed."""
    reason: str
    """Why this server, or how the request failed."""
    seconds: float

    @property
    def failed(self) -> bool:
        return self.port is None


class Traffic:
    """Requests that are sent during the block.

    Args:
        url: the application.
        user_id: an existing user.
        show: called with each answer to a read.
        user: the data of this user; each write gives it another name.
        pause: seconds between two requests of one client.

    """

    def __init__(
        self,
        *,
        url: str,
        user_id: int,
        show: collections.abc.Callable[[Answer], object] = lambda _: None,
        user: collections.abc.Mapping[str, str] = ADA,
        pause: float = PAUSE,
    ) -> None:
        self.reads: collections.deque[Answer] = collections.deque(maxlen=KEPT)
        """The answers to reads, the newest last."""
        self.recent: collections.deque[Answer] = collections.deque(maxlen=40)
        """The last ones."""
        self.written_on: int | None = None
        """The port of the server that took the last write; None while the last write failed."""
        self._url = url
        self._path = f"/users/{user_id}"
        self._show = show
        self._user = user
        self._pause = pause
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> typing.Self:
        self._tasks = [asyncio.create_task(self._read_on()) for _ in range(READERS)]
        self._tasks.append(asyncio.create_task(self._write_on()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, condition: collections.abc.Callable[[], bool]) -> bool:
        """Wait with a timeout until the last answers meet a condition; return whether they did."""
        self.recent.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT):
                while len(self.recent) < READERS * 5 or not condition():  # noqa: ASYNC110  # answers come from tasks
                    await asyncio.sleep(PAUSE)
                return True
        return False

    async def _read_on(self) -> None:
        async with self._client() as client:
            while True:
                answer = await self._ask(client, "GET")
                self.reads.append(answer)
                self.recent.append(answer)
                self._show(answer)
                await asyncio.sleep(self._pause)

    async def _write_on(self) -> None:
        numbers = itertools.count(1)
        async with self._client() as client:
            while True:
                # A new name each time: an unchanged user would not be written, and no replica would lag.
                user = {**self._user, "name": f"{self._user['name']} {next(numbers)}"}
                answer = await self._ask(client, "PUT", json=user)
                self.written_on = answer.port
                await asyncio.sleep(self._pause)

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._url, timeout=TIMEOUT, trust_env=False)

    async def _ask(self, client: httpx.AsyncClient, method: str, **options: typing.Any) -> Answer:
        began = time.monotonic()
        try:
            response = await client.request(method, self._path, **options)
            response.raise_for_status()
        except httpx.HTTPError as error:
            return Answer(server="", port=None, reason=f"{type(error).__name__}", seconds=time.monotonic() - began)
        report = Report.from_headers(response.headers)
        return Answer(server=report.server, port=report.port, reason=report.reason, seconds=time.monotonic() - began)

"""The contenders' processes, from the view of the benchmark's process."""

import asyncio
import collections
import collections.abc
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import typing

from benchmarks.contenders.catalogue import Entry
from benchmarks.servers import Servers


ROOT: typing.Final = pathlib.Path(__file__).parent.parent
TIMEOUT: typing.Final = 30.0
"""Seconds in which a contender has to answer a command."""


class ContenderFailedError(Exception):
    """A contender could not execute a command."""


class Worker:
    """The process of one contender; usable once it has connected."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.port = 0
        """The port of its HTTP server, once it is open."""
        self.pid = 0
        self.connected = asyncio.Event()
        self._orders: asyncio.StreamWriter
        self._answers: asyncio.StreamReader

    def connect(self, pid: int, answers: asyncio.StreamReader, orders: asyncio.StreamWriter) -> None:
        self.pid, self._answers, self._orders = pid, answers, orders
        self.connected.set()

    async def ask(self, order: str, *, timeout: float = TIMEOUT, **arguments: typing.Any) -> dict[str, typing.Any]:  # noqa: ASYNC109  # with an error of ours
        """Send a command and wait for the answer.

        Raises:
            ContenderFailedError: it raised, ended, or did not answer in time.

        """
        try:
            async with asyncio.timeout(timeout):
                await self.connected.wait()
                self._orders.write(json.dumps({"order": order, **arguments}).encode() + b"\n")
                line = await self._answers.readline()
        except TimeoutError:
            line = b'{"error": "no answer in time"}'
        answer: dict[str, typing.Any] = json.loads(line or b'{"error": "the process ended"}')
        if "error" in answer:
            msg = f"{self.entry.title}: {order}: {answer['error']}"
            raise ContenderFailedError(msg)
        return answer

    async def open(self, surface: str) -> None:
        self.port = (await self.ask("open", surface=surface)).get("port", 0)

    def end(self) -> None:
        """Kill the process and its children, whatever its state."""
        if self.connected.is_set():
            self.connected.clear()
            self._orders.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


class Workers(dict[str, Worker]):
    """Starts the contenders' processes for one cluster, by the contenders' names.

    Args:
        servers: the cluster.
        log: receives the standard error of the processes.
        processors: where they run; anywhere if empty.

    """

    def __init__(self, servers: Servers, log: typing.IO[bytes], processors: list[int]) -> None:
        super().__init__()
        self._servers = servers
        self._log = log
        self._processors = processors
        self._processes: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> typing.Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.values():
            worker.end()
        self._listener.close()
        for process in self._processes:
            await process.wait()

    async def start(self, entries: collections.abc.Iterable[Entry]) -> None:
        """Start a process for each contender; those of one environment are forked from one process."""
        by_environment: dict[str, list[str]] = collections.defaultdict(list)
        for entry in entries:
            self[entry.name] = Worker(entry)
            by_environment[entry.environment].append(entry.name)
        for environment, names in by_environment.items():
            port = self._listener.sockets[0].getsockname()[1]
            self._processes.append(
                # The arguments contain the password of the cluster's user, which is as short-lived as the cluster.
                await asyncio.create_subprocess_exec(
                    *(str(ROOT / environment / "bin" / "python"), "-m", "benchmarks.worker"),
                    *(str(port), json.dumps(dataclasses.asdict(self._servers)), json.dumps(self._processors), *names),
                    stderr=self._log,
                    cwd=ROOT,
                )
            )
        for worker in self.values():
            await asyncio.wait_for(worker.connected.wait(), TIMEOUT)

    async def open(self, surface: str, names: collections.abc.Iterable[str]) -> None:
        await asyncio.gather(*(self[name].open(surface) for name in names))

    async def restart(self, worker: Worker) -> None:
        """Replace a process that no longer works."""
        worker.end()
        await self.start([worker.entry])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = json.loads(await reader.readline())
        self[hello["name"]].connect(hello["pid"], reader, writer)

"""The processes of the contenders, as the command sees them."""

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
PATIENCE: typing.Final = 30.0
"""Seconds after which a contender that does not answer an order is given up."""


class ContenderFailedError(Exception):
    """A contender could not carry out an order."""


class Worker:
    """The process of one contender; it is there once it has called."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.port = 0
        """Where its HTTP server listens, once that is open."""
        self.pid = 0
        self.called = asyncio.Event()
        self._orders: asyncio.StreamWriter
        self._answers: asyncio.StreamReader

    def call(self, pid: int, answers: asyncio.StreamReader, orders: asyncio.StreamWriter) -> None:
        self.pid, self._answers, self._orders = pid, answers, orders
        self.called.set()

    async def ask(self, order: str, *, patience: float = PATIENCE, **arguments: typing.Any) -> dict[str, typing.Any]:
        """Give an order and wait for the answer, for so many seconds.

        Raises:
            ContenderFailedError: it raised, ended, or took too long.

        """
        try:
            async with asyncio.timeout(patience):
                await self.called.wait()
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
        """End the process, however it is."""
        if self.called.is_set():
            self.called.clear()
            self._orders.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Crew:
    """Starts the workers, for one cluster.

    Args:
        servers: the cluster.
        log: takes what the workers print on their standard error.
        processors: where they run; everywhere when it is empty.

    """

    def __init__(self, servers: Servers, log: typing.IO[bytes], processors: list[int]) -> None:
        self.workers: dict[str, Worker] = {}
        self._servers = servers
        self._log = log
        self._processors = processors
        self._processes: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> typing.Self:
        self._listener = await asyncio.start_server(self._answer_call, "127.0.0.1", 0, limit=1 << 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.end()
        self._listener.close()
        for process in self._processes:
            await process.wait()

    async def start(self, entries: collections.abc.Iterable[Entry]) -> None:
        """Start a worker for each contender; those of one environment are forks of one process."""
        by_environment: dict[str, list[str]] = collections.defaultdict(list)
        for entry in entries:
            self.workers[entry.name] = Worker(entry)
            by_environment[entry.environment].append(entry.name)
        for environment, names in by_environment.items():
            port = self._listener.sockets[0].getsockname()[1]
            self._processes.append(
                # The password of the cluster's user, which lives as long as the cluster, is in the arguments.
                await asyncio.create_subprocess_exec(
                    *(str(ROOT / environment / "bin" / "python"), "-m", "benchmarks.worker"),
                    *(str(port), json.dumps(dataclasses.asdict(self._servers)), json.dumps(self._processors), *names),
                    stderr=self._log,
                    cwd=ROOT,
                )
            )
        for worker in self.workers.values():
            await asyncio.wait_for(worker.called.wait(), PATIENCE)

    async def restart(self, worker: Worker, surface: str) -> None:
        """Start a worker again and open the surface: what it met left it useless."""
        worker.end()
        await self.start([worker.entry])
        await self.workers[worker.entry.name].open(surface)

    async def _answer_call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = json.loads(await reader.readline())
        self.workers[hello["name"]].call(hello["pid"], reader, writer)

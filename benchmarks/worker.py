"""One contender in a separate process and environment. It receives commands and answers as lines of JSON.

This way all contenders can be measured in turns, round by round. Started by `workers.Workers`.
"""

import asyncio
import collections.abc
import contextlib
import dataclasses
import gc
import importlib.metadata
import itertools
import json
import os
import random
import sys
import time
import typing

import uvicorn
from sqlalchemy import make_url

from benchmarks import applications
from benchmarks.closed_loop import closed_loop
from benchmarks.contenders.catalogue import BY_NAME as ENTRIES
from benchmarks.contenders.contender import Contender
from benchmarks.machine import keep_to
from benchmarks.plan import HTTP_SURFACES, SAME_REPLICA
from benchmarks.schema import BOOKS
from benchmarks.servers import Servers
from benchmarks.wire import Wire
from benchmarks.work.operations import BY_NAME as OPERATIONS


Answer = dict[str, typing.Any]

PACKAGES: typing.Final = (
    *("modern-di-replicas", "modern-di", "sqlalchemy", "asyncpg", "fastapi", "uvicorn"),
    *("hasql", "advanced-alchemy"),
)
COUNTED: typing.Final = 20


class Worker:
    """Executes the commands for one contender; each public method is a command.

    Args:
        contender: the one to measure.
        servers: the cluster.

    """

    def __init__(self, contender: type[Contender], servers: Servers) -> None:
        self._contender = contender
        self._servers = servers
        self._one_replica = dataclasses.replace(servers, replicas=servers.replicas[:1])
        self._stack = contextlib.AsyncExitStack()
        self._keys = itertools.cycle(random.Random(0).sample(range(1, BOOKS + 1), BOOKS))  # noqa: S311  # the same keys for all

    async def versions(self) -> Answer:
        return {package: importlib.metadata.version(package) for package in PACKAGES}

    async def open(self, surface: str) -> Answer:
        """Start the contender for sessions alone or behind an HTTP server; close what was open before."""
        await self._stack.aclose()
        contender = self._contender(self._one_replica if surface == SAME_REPLICA.surface else self._servers)
        if surface not in HTTP_SURFACES:
            self._opened = await self._stack.enter_async_context(contender)
            return {}
        return {"port": await self._stack.enter_async_context(serving(applications.build(contender)))}

    async def run(self, operation: str, clients: int, seconds: float) -> Answer:
        """Let a number of clients repeat the operation for a given time."""

        async def request(_: int) -> bool:
            try:
                await self._do(self._opened, operation)
            except Exception as error:  # noqa: BLE001  # any error of a contender is its failure
                print(f"{operation}: {error!r}", file=sys.stderr)  # noqa: T201  # goes to the log
                return False
            return True

        async def cpu() -> float:
            return time.process_time()

        return (await closed_loop(request, cpu, clients=clients, seconds=seconds))._asdict()

    async def _do(self, contender: Contender, operation: str) -> None:
        async with contender.unit_of_work(writes=OPERATIONS[operation].writes) as session:
            await contender.work[operation](session, next(self._keys))

    async def cpu(self) -> Answer:
        return {"cpu": time.process_time()}

    async def round_trips(self, operation: str) -> Answer:
        """Count the round trips of one operation in the steady state, through proxies."""
        async with contextlib.AsyncExitStack() as stack:
            wires: list[Wire] = []

            async def through_proxy(url: str) -> str:
                wires.append(await stack.enter_async_context(Wire(make_url(url).port or 5432)))
                return make_url(url).set(port=wires[-1].port).render_as_string(hide_password=False)

            proxied = Servers(
                primary=await through_proxy(self._servers.primary),
                replicas=tuple([await through_proxy(url) for url in self._servers.replicas]),
            )
            contender = await stack.enter_async_context(self._contender(proxied))
            counts = []
            # The monitor's own round trips fall into few of the operations, so the median excludes them.
            for _ in range(COUNTED * 2):
                before = sum(wire.round_trips for wire in wires)
                await self._do(contender, operation)
                counts.append(sum(wire.round_trips for wire in wires) - before)
            return {"count": sorted(counts[COUNTED:])[COUNTED // 2]}

    async def close(self) -> None:
        await self._stack.aclose()


@contextlib.asynccontextmanager
async def serving(app: typing.Any) -> collections.abc.AsyncIterator[int]:
    """Serve an application over HTTP in this event loop; return the port."""
    # The server creates its socket: asyncio sets TCP_NODELAY only if a socket's protocol is TCP, which is not set by
    # `socket.create_server`. Every response would then wait 40 ms for a delayed acknowledgement.
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, http="httptools", ws="none", access_log=False, log_config=None, lifespan="on"
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        if task.done():
            await task
            msg = "the application did not start"
            raise RuntimeError(msg)
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def work(name: str, servers: Servers, port: int) -> None:
    """Execute commands until the benchmark's process closes the connection."""
    orders, answers = await asyncio.open_connection("127.0.0.1", port)
    answers.write(json.dumps({"name": name, "pid": os.getpid()}).encode() + b"\n")
    worker = Worker(ENTRIES[name].load(), servers)
    while line := await orders.readline():
        order = json.loads(line)
        try:
            answer = await getattr(worker, order.pop("order"))(**order)
        except Exception as error:  # noqa: BLE001  # the command reports which contender failed
            answer = {"error": repr(error)}
        answers.write(json.dumps(answer).encode() + b"\n")
    await worker.close()


def main(port: str, servers: str, processors: str, *names: str) -> None:
    """Fork a process for each contender, so that common imports happen once."""
    given = json.loads(servers)
    keep_to(json.loads(processors))
    gc.freeze()
    for name in names:
        if os.fork() == 0:
            os.setpgrp()  # a pooler that it starts is killed with it
            asyncio.run(work(name, Servers(primary=given["primary"], replicas=tuple(given["replicas"])), int(port)))
            return
    for _ in names:
        os.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])

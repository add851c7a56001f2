"""One contender in a process of its own, in its environment: takes orders as lines of JSON, and answers in kind.

So all contenders can be measured in turns, round by round. Run by `workers.working`.
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
import tracemalloc
import typing

import uvicorn
from sqlalchemy import make_url

from benchmarks import alternating, applications
from benchmarks.closed_loop import closed_loop
from benchmarks.contenders.catalogue import BY_NAME as ENTRIES
from benchmarks.contenders.contender import Contender
from benchmarks.plan import HTTP_SURFACES, SAME_REPLICA
from benchmarks.processors import keep_to
from benchmarks.schema import BOOKS
from benchmarks.servers import Servers
from benchmarks.wire import Wire
from benchmarks.work.operations import BY_NAME as OPERATIONS


Answer = dict[str, typing.Any]

PACKAGES: typing.Final = (
    "modern-di-replicas",
    "modern-di",
    "sqlalchemy",
    "asyncpg",
    "fastapi",
    "litestar",
    "uvicorn",
    "hasql",
    "advanced-alchemy",
)
COUNTED: typing.Final = 20
HELD: typing.Final = 8
"""Units of work that are open at once when their memory is measured; no pool is smaller."""


class Worker:
    """Carries out the orders for one contender; each public method is an order.

    Args:
        contender: what to measure.
        servers: the cluster.

    """

    def __init__(self, contender: type[Contender], servers: Servers) -> None:
        self._contender = contender
        self._servers = servers
        self._one_replica = dataclasses.replace(servers, replicas=servers.replicas[:1])
        self._stack = contextlib.AsyncExitStack()
        self._keys = itertools.cycle(random.Random(0).sample(range(1, BOOKS + 1), BOOKS))  # noqa: S311  # the same keys for all

    async def versions(self) -> Answer:
        found = {}
        for package in PACKAGES:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[package] = importlib.metadata.version(package)
        return found

    async def open(self, surface: str) -> Answer:
        """Start the contender for bare sessions, or behind an HTTP server; what was open before is closed."""
        await self._stack.aclose()
        contender = self._contender(self._one_replica if surface == SAME_REPLICA.surface else self._servers)
        if surface not in HTTP_SURFACES:
            self._opened = await self._stack.enter_async_context(contender)
            return {}
        app = applications.build_fastapi(contender) if surface == "fastapi" else applications.build_litestar(contender)
        return {"port": await self._stack.enter_async_context(serving(app))}

    async def run(self, operation: str, clients: int, seconds: float) -> Answer:
        """Let so many clients do the operation one after another for so long."""
        work, writes = self._contender.work[operation], OPERATIONS[operation].writes

        async def request(_: int) -> bool:
            try:
                async with self._opened.unit_of_work(writes=writes) as session:
                    await work(session, next(self._keys))
            except Exception as error:  # noqa: BLE001  # whatever a contender raises is a failure of its own
                print(f"{operation}: {error!r}", file=sys.stderr)  # noqa: T201  # for who looks into the log
                return False
            return True

        cpu = time.process_time()
        count = await closed_loop(request, clients=clients, seconds=seconds)
        return {**dataclasses.asdict(count), "cpu": time.process_time() - cpu}

    async def alternate(self, names: list[str], rounds: int) -> Answer:
        """Compare contenders in this process, all on the same one replica."""
        async with contextlib.AsyncExitStack() as stack:
            contenders: dict[str, Contender] = {
                name: await stack.enter_async_context(ENTRIES[name].load()(self._one_replica)) for name in names
            }
            return dict(await alternating.alternate(contenders, self._keys, rounds=rounds))

    async def cpu(self) -> Answer:
        return {"cpu": time.process_time()}

    async def round_trips(self, operation: str) -> Answer:
        """Count the round trips of one operation, in the steady state, through proxies."""
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
            work, writes = self._contender.work[operation], OPERATIONS[operation].writes
            counts = []
            # A monitor's own round trips fall into few of them: the median is without.
            for _ in range(COUNTED * 2):
                before = sum(wire.round_trips for wire in wires)
                async with contender.unit_of_work(writes=writes) as session:
                    await work(session, next(self._keys))
                counts.append(sum(wire.round_trips for wire in wires) - before)
            return {"round_trips": sorted(counts[COUNTED:])[COUNTED // 2]}

    async def memory(self) -> Answer:
        """Measure the bytes that an open unit of work holds after one read, connections not counted."""
        gc.collect()
        # Not the one that is opened already: its pool would keep the connections, and rotate over them for one client.
        async with self._contender(self._servers) as contender, contextlib.AsyncExitStack() as stack:
            read = self._contender.work["orm_read"]

            async def hold() -> None:
                await read(await stack.enter_async_context(contender.unit_of_work(writes=False)), next(self._keys))

            async with contextlib.AsyncExitStack() as connected:  # the pools are filled before
                for _ in range(HELD):
                    await read(await connected.enter_async_context(contender.unit_of_work(writes=False)), 1)
            gc.collect()
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(HELD):
                await hold()
            gc.collect()
            held = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
        return {"bytes": held / HELD}

    async def close(self) -> Answer:
        await self._stack.aclose()
        return {}


@contextlib.asynccontextmanager
async def serving(app: typing.Any) -> collections.abc.AsyncIterator[int]:
    """Serve an application over HTTP in this event loop, and give the port."""
    # The server makes its own socket: asyncio sets TCP_NODELAY only where a socket says that it is TCP, which those of
    # `socket.create_server` do not, and then every answer waits 40 ms for a delayed acknowledgement.
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
    """Take orders from the command until it hangs up."""
    orders, answers = await asyncio.open_connection("127.0.0.1", port)
    answers.write(json.dumps({"name": name, "pid": os.getpid()}).encode() + b"\n")
    worker = Worker(ENTRIES[name].load(), servers)
    while line := await orders.readline():
        order = json.loads(line)
        try:
            answer = await getattr(worker, order.pop("order"))(**order)
        except Exception as error:  # noqa: BLE001  # the command says which contender could not do what
            answer = {"error": repr(error)}
        answers.write(json.dumps(answer).encode() + b"\n")
    await worker.close()


def main(port: str, servers: str, processors: str, *names: str) -> None:
    """Become one process for each contender; what they all import is imported once, before."""
    given = json.loads(servers)
    keep_to(json.loads(processors))
    gc.freeze()
    for name in names:
        if os.fork() == 0:
            asyncio.run(work(name, Servers(primary=given["primary"], replicas=tuple(given["replicas"])), int(port)))
            return
    for _ in names:
        os.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])

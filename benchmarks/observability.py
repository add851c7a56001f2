"""The cost of hooks in a FastAPI request: `python -m benchmarks.observability`.

Needs the extras `prometheus` and `testing`. Requests are passed to the application without a network and in turns, so
that other load affects all equally. The processor time is that of the application and its monitor.
"""

import asyncio
import collections.abc
import contextlib
import statistics
import sys
import time
import typing
from typing import Annotated

import fastapi
from modern_di import Container
from modern_di_fastapi import FromDI
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.fastapi import Dependencies, setup_replicas
from modern_di_replicas.observability import Event, Hook, PrometheusHook
from modern_di_replicas.testing import LocalCluster


ROUNDS: typing.Final = 100
REQUESTS: typing.Final = 100
SCOPE: typing.Final = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"test")],
    "server": ("test", 80),
    "client": ("test", 1),
}


class Nothing:
    """A hook that does nothing: the cost of the events alone."""

    def on_event(self, event: Event, /) -> None:
        pass


def application(cluster: LocalCluster, hooks: collections.abc.Sequence[Hook]) -> fastapi.FastAPI:
    app = fastapi.FastAPI()

    @app.get("/")
    async def read(session: Annotated[AsyncSession, FromDI(AsyncSession)]) -> int:
        return int((await session.execute(text("SELECT 1"))).scalar_one())

    settings = ReplicationSettings(
        primary=cluster.primary.url, replicas=[server.url for server in cluster.replicas], hooks=hooks
    )
    setup_replicas(app, Container(groups=[Dependencies], context={ReplicationSettings: settings}))
    return app


async def request(app: fastapi.FastAPI) -> None:
    async def receive() -> dict[str, typing.Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: collections.abc.MutableMapping[str, typing.Any]) -> None:
        pass

    await app(dict(SCOPE), receive, send)


async def measure(cluster: LocalCluster) -> dict[str, list[float]]:
    """Return the processor time of a request in each round, in microseconds."""
    apps = {
        "no hooks": application(cluster, []),
        "no hooks, again": application(cluster, []),
        "a hook that does nothing": application(cluster, [Nothing()]),
        "PrometheusHook": application(cluster, [PrometheusHook(registry=CollectorRegistry())]),
    }
    times: dict[str, list[float]] = {name: [] for name in apps}
    async with contextlib.AsyncExitStack() as stack:
        for app in apps.values():
            await stack.enter_async_context(app.router.lifespan_context(app))
        for _ in range(ROUNDS):
            for name, app in apps.items():
                began = time.process_time()
                for _ in range(REQUESTS):
                    await request(app)
                times[name].append((time.process_time() - began) / REQUESTS * 1e6)
    return times


def main() -> None:
    with LocalCluster() as cluster:
        times = asyncio.run(measure(cluster))
    base = times["no hooks"]
    for name, measured in times.items():
        # A slowdown of the machine within a round affects both.
        more = statistics.median(one / other for one, other in zip(measured, base, strict=True)) - 1
        sys.stdout.write(f"{name:<26}{statistics.median(measured):8.1f} us  {more * 100:+5.1f} %\n")


if __name__ == "__main__":
    main()

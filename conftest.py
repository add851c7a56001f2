"""Fixtures of the whole suite: clusters, databases, and the executed examples of the documentation."""

import asyncio
import collections.abc
import dataclasses
import functools
import gc
import importlib.metadata
import os
import pathlib
import signal
import sys
import types
import typing

import fastapi
import httpx
import hypothesis
import litestar
import packaging.version
import pytest
import sybil
from modern_di import Container
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.consistency import client
from modern_di_replicas.testing import LocalCluster, empty_database, routing_log
from modern_di_replicas.testing.cluster import DRIVER_VARIABLE
from tests.disposable import Disposable
from tests.pgbouncer import POOLER_VARIABLE, end_poolers
from tests.redis_server import redis_server


# A shell's background job ignores these, and so do its children: tests that send them would time out.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


# A busy machine is slow, which is not a fault of the code; half of the usual examples suffice for small functions.
hypothesis.settings.register_profile(
    "suite", max_examples=50, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("suite")


pytest_plugins = ["modern_di_replicas.testing.fixtures", "tests.certificates", "tests.resolver"]


HISTORIES = pathlib.Path(__file__).parent / "tests" / "history"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `make test-quick` leaves out, so that new tests are marked automatically.

    A test that breaks servers uses `disposable_cluster`, directly or through other fixtures, or its file starts
    clusters.
    """
    for item in items:
        if "disposable_cluster" in getattr(item, "fixturenames", ()) or starts_clusters(item.path):
            item.add_marker(pytest.mark.faults)
        if item.path.is_relative_to(HISTORIES):
            item.add_marker(pytest.mark.history)


def pytest_collection_finish() -> None:
    """Exclude imported objects from garbage collections, which would otherwise take a fifth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


@functools.cache
def starts_clusters(path: pathlib.Path) -> bool:
    """Return whether a test file, or the recipe beside it, starts clusters."""
    return any("LocalCluster(" in one.read_text() for one in (path, path.with_name("app.py")) if one.exists())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--driver", choices=["asyncpg", "psycopg"], default="asyncpg", help="the driver of the tests' URLs"
    )

    parser.addoption(
        "--pooler",
        action="store_true",
        help="reach the servers through pgbouncer in transaction mode, in tests/session, tests/asgi and tests/cluster",
    )


def pytest_configure(config: pytest.Config) -> None:
    os.environ[DRIVER_VARIABLE] = config.getoption("--driver")
    if config.getoption("--pooler"):
        os.environ[POOLER_VARIABLE] = "1"
        config.add_cleanup(end_poolers)
    if config.getoption("--driver") == "psycopg":
        # A stream that is not exhausted closes its cursor at the end of the transaction; psycopg warns about it.
        config.addinivalue_line("filterwarnings", "ignore:.*ServerCursorMixin:pytest.PytestUnraisableExceptionWarning")
    if packaging.version.Version(importlib.metadata.version("celery")) < packaging.version.Version("5.7"):
        # Its pool of Redis connections does not close them.
        config.addinivalue_line("filterwarnings", "ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(autouse=True)
def no_client_of_an_earlier_test() -> None:
    """Discard the writes of a synchronous test: it runs in the context from which all later tests start."""
    client._current.set(None)  # noqa: SLF001  # an application never has to


@pytest.fixture(scope="session")
def disposable() -> collections.abc.Iterator[Disposable]:
    """Yield the provider of clusters to break; it starts a new one only if the last one cannot be restored."""
    disposable = Disposable()
    yield disposable
    disposable.end()


@pytest.fixture(scope="session")
def redis_url() -> collections.abc.Iterator[str]:
    """Yield the URL of a Redis; each test uses separate queue names."""
    with redis_server() as url:
        yield url


@pytest.fixture
def disposable_cluster(disposable: Disposable) -> collections.abc.Iterator[LocalCluster]:
    """Yield a primary and two replicas that the test may break."""
    yield disposable.take()
    end_poolers()  # they refuse the first client after an outage of their server
    disposable.give_back()


@dataclasses.dataclass(kw_only=True, slots=True)
class Examples:
    """Serves the applications of a document with its settings, but with the addresses of real servers.

    Documents use it for assertions in code blocks that are invisible in rendered Markdown.
    """

    cluster: LocalCluster
    database: ReplicationSettings

    @staticmethod
    def page(path: str) -> str:
        """Return the text of a page, to compare it with the code."""
        return (pathlib.Path(__file__).parent / path).read_text()

    @classmethod
    def outputs(cls, path: str, command: str) -> list[str]:
        """Return the command outputs that a page shows."""
        shown = cls.page(path).split(f"$ {command}\n", 1)[1].split("```", 1)[0]
        return [line for line in shown.splitlines() if not line.startswith("$")]

    def settings(self, written: ReplicationSettings) -> ReplicationSettings:
        """Return the settings that a document shows, with real addresses in the same order."""
        given = self.database.servers[: len(written.servers)]
        replicas = [
            dataclasses.replace(replica, url=real.url) for replica, real in zip(written.servers, given, strict=True)
        ]
        return dataclasses.replace(written, primary=self.database.primary, replicas=replicas)

    def servers_of(
        self,
        app: fastapi.FastAPI | litestar.Litestar,
        container: Container,
        *requests: str,
        tables: MetaData | None = None,
        **options: typing.Any,  # log lines of httpx
    ) -> list[str]:
        """Send requests such as `GET /users/1`, and return the servers of each request's statements."""
        container.validate()
        container.open()
        container.set_context(ReplicationSettings, self.settings(container.resolve(ReplicationSettings)))
        return asyncio.run(self._serve(app, requests, tables or MetaData(), options))

    async def _serve(
        self,
        app: fastapi.FastAPI | litestar.Litestar,
        requests: collections.abc.Iterable[str],
        tables: MetaData,
        options: dict[str, typing.Any],
    ) -> list[str]:
        owner = create_async_engine(self.database.primary)
        async with owner.begin() as connection:
            await connection.run_sync(tables.create_all)
        await owner.dispose()
        self.cluster.catch_up()
        lifespan = app.router.lifespan_context(app) if isinstance(app, fastapi.FastAPI) else app.lifespan()
        transport = httpx.ASGITransport(typing.cast(typing.Any, app))
        servers = []
        async with lifespan, httpx.AsyncClient(transport=transport, base_url="http://example") as client:
            for request in requests:
                with routing_log() as log:
                    response = await client.request(*request.split(), **options)
                response.raise_for_status()
                servers.append(", ".join(sorted(set(log.servers))))
                self.cluster.catch_up()
        return servers


@pytest.fixture(scope="module")
def examples(
    replicated_cluster: LocalCluster, shared_database: ReplicationSettings
) -> collections.abc.Iterator[Examples]:
    """Yield the objects with which a document's examples run on an empty database."""
    yield Examples(cluster=replicated_cluster, database=shared_database)
    asyncio.run(empty_database(shared_database))


class Page(sybil.Document):
    """A page of the documentation. It is one test: its blocks depend on each other, and run in order."""

    def examples(self) -> collections.abc.Iterator[sybil.Example]:
        """Yield the last block, which represents the page."""
        yield from list(super().examples())[-1:]

    def blocks(self) -> collections.abc.Iterator[sybil.Example]:
        return super().examples()


def evaluate_page(example: sybil.Example) -> None:
    evaluate = PythonEvaluator()
    for block in typing.cast(Page, example.document).blocks():
        evaluate(block)


def name_the_module(namespace: dict[str, typing.Any]) -> None:
    """Give the code of a document a module name, which classes need, and a module, which Litestar's handlers need."""
    namespace["__name__"] = "example"
    sys.modules["example"] = types.ModuleType("example")


pytest_collect_file = sybil.Sybil(
    parsers=[CodeBlockParser(language="python", evaluator=evaluate_page)],
    patterns=["*.md"],
    setup=name_the_module,
    fixtures=["examples"],
    document_types={".md": Page},
).pytest()

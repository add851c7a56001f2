import collections.abc
import contextlib
import os
import socket
import subprocess
import sys

import flask
import httpx
import psutil
import pytest
from sqlalchemy import make_url, text

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.sync import PrimaryEngine
from modern_di_replicas.testing import RoutingLog
from recipes.flask_app.app import Base, create_app
from tests.waiting import until


def with_psycopg(url: str) -> str:
    return make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


@pytest.fixture
def settings(database: ReplicationSettings) -> ReplicationSettings:
    return ReplicationSettings(
        primary=with_psycopg(database.declared_primary.url),
        replicas=[with_psycopg(replica.url) for replica in database.servers],
        catch_up_wait=5,
    )


@pytest.fixture
def app(settings: ReplicationSettings) -> collections.abc.Iterator[flask.Flask]:
    app = create_app(settings)
    container = app.extensions["modern_di_container"]
    Base.metadata.create_all(container.resolve(PrimaryEngine))
    with container:
        yield app


def test_each_request_uses_the_server_it_needs(app: flask.Flask, routing_log: RoutingLog) -> None:
    """A client sees its entry, from a replica that has it."""
    client = app.test_client()
    assert client.post("/entries", json={"words": "hello"}).status_code == 201
    routing_log.clear()
    assert client.get("/entries").json == ["hello"]
    assert client.post("/search", json={"words": "ell"}).json == ["hello"]
    routing_log.assert_only_replicas()
    assert client.get("/count").json == {"entries": 1}
    assert "primary" in routing_log.servers


def test_commands_are_units_of_work(app: flask.Flask) -> None:
    """One reads, the other writes."""
    app.test_client().post("/entries", json={"words": "hello"})
    runner = app.test_cli_runner()
    assert runner.invoke(args=["report"]).output in ("1 entries\n", "0 entries\n"), "a replica may not have it yet"
    assert runner.invoke(args=["book", "clean"]).output == "All entries are deleted.\n"
    assert app.test_client().get("/count").json == {"entries": 0}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextlib.contextmanager
def gunicorn(settings: ReplicationSettings) -> collections.abc.Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Serve the application as described in the recipe, with two workers that are forked after loading it."""
    port = free_port()
    environment = {
        **os.environ,
        "DB_PRIMARY": str(settings.primary),
        "DB_REPLICAS": ",".join(replica.url for replica in settings.servers),
        "DB_APPLICATION_NAME": "gunicorn-test",
        "DB_CATCH_UP_WAIT": "5",
    }
    options = ["--bind", f"127.0.0.1:{port}", "--workers", "2", "--threads", "4", "--preload", "--log-level", "error"]
    command = [sys.executable, "-m", "gunicorn", *options, "recipes.flask_app.app:main()"]
    process = subprocess.Popen(command, env=environment)  # noqa: S603  # a program of the tests' own
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


async def test_workers_that_are_forked_have_connections_and_a_monitor_of_their_own(
    app: flask.Flask, settings: ReplicationSettings
) -> None:
    """Under gunicorn with `--preload`; a killed worker leaves no connection behind."""
    engine = app.extensions["modern_di_container"].resolve(PrimaryEngine)
    connected = text("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'gunicorn-test%'")

    def connections() -> int:
        with engine.connect() as connection:
            return connection.scalar(connected) or 0

    with gunicorn(settings) as (process, url):
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:

            async def is_up() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return bool((await client.get("/server")).json() == {"standby": True})
                return False

            await until(is_up)
            for number in range(20):
                assert (await client.post("/entries", json={"words": f"word {number}"})).status_code == 201
                assert len((await client.get("/entries")).json()) == number + 1
            assert connections() > 0
            for worker in psutil.Process(process.pid).children():
                worker.kill()
            await until(is_up)  # gunicorn starts new ones
            assert len((await client.get("/entries")).json()) == 20
    await until(lambda: connections() == 0)

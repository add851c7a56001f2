"""Flask and a `Session`: `make bench-flask`, with SQLAlchemy 2.0, the newest version that all contenders support.

Each contender reads a row by its key: in a session alone, and as a request into the WSGI application without a network.
They take turns, so that other load affects all equally; the ratio compares two runs of the same round.
Under gunicorn, two forked workers with threads each serve the same application to clients of a thread pool.
"""

import collections.abc
import concurrent.futures
import contextlib
import http.client
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import typing

import flask
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from werkzeug.test import create_environ, run_wsgi_app

from benchmarks.contenders import synchronous
from benchmarks.results import Spread
from benchmarks.schema import BOOKS, Base, Book
from benchmarks.servers import Servers
from modern_di_replicas.testing import LocalCluster


ROUNDS: typing.Final = 40
WARM_UP: typing.Final = 100
READS: typing.Final = 100
LIMIT: typing.Final = 0.65
"""Limit of our time for a read on a session, as a share of that of the `get_bind()`."""
CLIENTS: typing.Final = 16
SECONDS: typing.Final = 3.0
GUNICORN_ROUNDS: typing.Final = 3

Read = collections.abc.Callable[[int], object]


def create_books(url: str) -> None:
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO authors VALUES (1, 'Author')"))
        connection.execute(text(f"INSERT INTO books SELECT n, 'Book ' || n, 0, 1 FROM generate_series(1, {BOOKS}) n"))  # noqa: S608  # a constant
    engine.dispose()


def read_in_session(contender: synchronous.Contender) -> Read:
    def read(key: int) -> object:
        with contender.unit_of_work() as session:
            return session.get_one(Book, key).title

    return read


def read_in_request(contender: synchronous.Contender) -> Read:
    app = add_route(contender)

    def read(key: int) -> object:
        body, status, _ = run_wsgi_app(app, create_environ(f"/books/{key}"))
        assert status.startswith("200"), status
        return b"".join(body)

    return read


def add_route(contender: synchronous.Contender) -> flask.Flask:
    """Return the application of a contender with the measured view."""

    def book(session: Session, key: int) -> dict[str, object]:
        found = session.get_one(Book, key)
        return {"id": found.id, "title": found.title, "copies": found.copies}

    contender.app.get("/books/<int:key>")(contender.view(book))
    return contender.app


def compare(reads: dict[str, Read]) -> dict[str, list[float]]:
    """Return the microseconds of a read in each round."""
    times: dict[str, list[float]] = {name: [] for name in reads}
    for read in reads.values():
        for key in range(1, WARM_UP):
            read(key)
    for number in range(ROUNDS):
        # A different order in each round, so that no contender always follows the same one.
        for name in random.Random(number).sample(list(reads), len(reads)):  # noqa: S311
            began = time.perf_counter()
            for key in range(1, READS + 1):
                reads[name](key)
            times[name].append((time.perf_counter() - began) / READS * 1e6)
    return times


@contextlib.contextmanager
def gunicorn(name: str, servers: Servers) -> collections.abc.Iterator[int]:
    """Serve a contender's application and give its port."""
    environment = {**os.environ, "CONTENDER": name, "PRIMARY": servers.primary, "REPLICAS": " ".join(servers.replicas)}
    options = ["--bind", "127.0.0.1:0", "--workers", "2", "--worker-class", "gthread", "--threads", "8", "--preload"]
    command = [sys.executable, "-m", "gunicorn", *options, "benchmarks.synchronous:served()"]
    root = pathlib.Path(__file__).parents[1]
    with subprocess.Popen(command, env=environment, cwd=root, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603  # our own
        try:
            errors = typing.cast(typing.IO[str], process.stderr)
            listening = next(line for line in errors if "Listening at" in line)
            yield int(listening.split("127.0.0.1:")[1].split()[0])
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()


def served() -> flask.Flask:
    """Return the application that gunicorn serves."""
    servers = Servers(primary=os.environ["PRIMARY"], replicas=tuple(os.environ["REPLICAS"].split()))
    return add_route(synchronous.CONTENDERS[os.environ["CONTENDER"]](servers))


def requests_per_second(port: int) -> float:
    def client(number: int) -> int:
        connection, done = http.client.HTTPConnection("127.0.0.1", port, timeout=30), 0
        while time.perf_counter() < deadline:
            connection.request("GET", f"/books/{1 + (number + done) % BOOKS}")
            response = connection.getresponse()
            response.read()
            assert response.status == http.HTTPStatus.OK, response.status
            done += 1
        connection.close()
        return done

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as executor:
        for seconds in (0.5, SECONDS):  # the first run warms up
            deadline = time.perf_counter() + seconds
            total = sum(executor.map(client, range(CLIENTS)))
    return total / SECONDS


def show(title: str, times: dict[str, list[float]], unit: str = "us") -> dict[str, Spread]:
    ratios = {
        name: Spread.of(our / their for our, their in zip(times[synchronous.OURS], measured, strict=True))
        for name, measured in times.items()
    }
    sys.stdout.write(f"{title}\n")
    for name, measured in times.items():
        sys.stdout.write(
            f"  {name:<34}{Spread.of(measured).median:9.0f} {unit}   ours / theirs: {ratios[name].show()}\n"
        )
    return ratios


def main() -> int:
    """Print the comparison; return 1 if a read on a session takes longer than the limit."""
    with LocalCluster(driver="psycopg") as cluster, contextlib.ExitStack() as stack:
        servers = Servers(primary=cluster.primary.url, replicas=tuple(replica.url for replica in cluster.replicas))
        create_books(servers.primary)
        cluster.catch_up()
        contenders = {
            name: stack.enter_context(contender(servers)) for name, contender in synchronous.CONTENDERS.items()
        }
        ratios = show("session", compare({name: read_in_session(each) for name, each in contenders.items()}))
        applications = {name: read_in_request(each) for name, each in contenders.items() if each.has_app}
        show("request into Flask", compare(applications))
        rates: dict[str, list[float]] = {name: [] for name in applications}
        for _ in range(GUNICORN_ROUNDS):
            for name, found in rates.items():
                with gunicorn(name, servers) as port:
                    found.append(requests_per_second(port))
        show(f"gunicorn, {CLIENTS} clients", rates, "requests per second")
    ratio = ratios[synchronous.GET_BIND]
    sys.stdout.write(f"a read on a session, of the time of get_bind(): {ratio.show()}, at most {LIMIT}\n")
    return 0 if ratio.median <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())

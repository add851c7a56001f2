"""The same registers as in `application`, as a Flask application that gunicorn serves with forked workers.

`python -m tests.history.threaded <WorkerSettings as JSON> <number of workers>`. It prints its port, and ends when its
standard input does.
"""

import collections.abc
import contextlib
import dataclasses
import datetime as dt
import json
import logging
import os
import random
import signal
import sys
import threading
import traceback
import typing
from typing import Annotated
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import flask
from gunicorn.app.base import BaseApplication
from modern_di import Container, Scope, providers
from modern_di_flask import FromDI, inject
from sqlalchemy import make_url
from sqlalchemy.orm import Session
from werkzeug.exceptions import InternalServerError

from modern_di_replicas import Bounded, Intent, Replica, ReplicationSettings
from modern_di_replicas.drivers.psycopg_sync import driver
from modern_di_replicas.drivers.psycopg_sync_connection import ReportingConnection
from modern_di_replicas.flask import Dependencies, request_intent, setup_replicas, with_replica
from modern_di_replicas.integration import declared_intent
from modern_di_replicas.sync.watch import Watch
from tests.history.application import READ, WRITE, WorkerSettings


logger = logging.getLogger(__name__)

THREADS: typing.Final = 16
LATEST: typing.Final = 0.002
"""Seconds until an interrupted commit loses its connection: some are complete by then, some are not."""

_commits: typing.Final = threading.local()
"""The interruption of this thread's commits."""


def affine_intent(declared: Intent | None, watch: Watch, request: flask.Request | None = None) -> Intent:
    """Return the built-in intent, with an affinity per client."""
    intent = request_intent(declared, watch, request)
    return intent if request is None else dataclasses.replace(intent, affinity=request.headers.get("x-client"))


class AffineDependencies(Dependencies):
    intent = providers.Factory(affine_intent, scope=Scope.REQUEST, cache=True, kwargs={"declared": declared_intent})


def _execute(session: Session, statement: typing.Any, key: str) -> list[typing.Any]:
    return list(session.execute(statement, {"key": key}).one())


def on_psycopg(url: str) -> str:
    return make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def build(settings: WorkerSettings) -> flask.Flask:
    """Return the application."""
    replication = ReplicationSettings(
        primary=on_psycopg(settings.primary),
        replicas=[Replica(on_psycopg(url)) for url in settings.replicas],
        max_lag=dt.timedelta(seconds=2),
        probe_timeout=2.0,  # as in `application`
        primary_pool_size=20,
        primary_pool_timeout=5.0,
        replica_pool_size=20,
    )
    app = flask.Flask(__name__)
    setup_replicas(app, Container(groups=[AffineDependencies], context={ReplicationSettings: replication}))
    sessions = Annotated[Session, FromDI(Session)]

    @app.post("/registers/<key>")
    @inject
    def write(key: str, session: sessions) -> list[typing.Any]:
        answer = _execute(session, WRITE, key)
        _commits.interruption = flask.request.args.get("commit", "")
        try:
            session.commit()
        finally:
            _commits.interruption = ""
        return answer

    @app.get("/registers/<key>")
    @inject
    def read(key: str, session: sessions) -> list[typing.Any]:
        return _execute(session, READ, key)

    @app.get("/bounded/<key>")
    @with_replica(consistency=Bounded(dt.timedelta(seconds=settings.lag)))
    @inject
    def read_bounded(key: str, session: sessions) -> list[typing.Any]:
        return _execute(session, READ, key)

    @app.errorhandler(InternalServerError)
    def tell(error: InternalServerError) -> tuple[str, int]:
        return told(error.original_exception or error), 500

    @app.after_request
    def name_worker(response: flask.Response) -> flask.Response:
        response.headers["x-worker"] = str(os.getpid())
        return response

    typing.cast(typing.Any, app).wsgi_app = telling(app.wsgi_app)
    return app


def told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def telling(app: WSGIApplication) -> WSGIApplication:
    """Return an application that also responds with the traceback of an error outside its views."""

    def tell(environ: WSGIEnvironment, start_response: StartResponse) -> collections.abc.Iterable[bytes]:
        try:
            return app(environ, start_response)
        except Exception as error:
            logger.exception("An error outside of the views")
            body = told(error).encode()
            headers = [("content-type", "text/plain"), ("content-length", str(len(body)))]
            start_response("500 Internal Server Error", headers, sys.exc_info())
            return [body]

    return tell


@contextlib.contextmanager
def cut_off(connection: ReportingConnection) -> collections.abc.Iterator[None]:
    """Close a connection while a commit is sent, or right after it: a thread cannot be cancelled."""
    delay = random.random() * LATEST  # noqa: S311  # for variety
    cutting = threading.Timer(delay, driver.terminate, (connection,))
    cutting.start()
    try:
        yield
    finally:
        cutting.join()  # on a busy machine this runs late, when another request may have the connection


def interrupt_commits() -> None:
    """Lose the responses of commits, or close their connections, if a request asks for it."""
    commit = ReportingConnection.commit

    def interrupted(connection: ReportingConnection) -> None:
        interruption = getattr(_commits, "interruption", "")
        with cut_off(connection) if interruption == "cancelled" else contextlib.nullcontext():
            commit(connection)
        if interruption == "lost":
            driver.terminate(connection)
            msg = "the connection was lost before the answer came"
            raise ConnectionResetError(msg)

    typing.cast(typing.Any, ReportingConnection).commit = interrupted


class Served(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """An application under gunicorn: loaded once, then forked."""

    def __init__(self, app: flask.Flask, workers: int) -> None:
        self._app = app
        self._workers = workers
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, typing.Any] = {
            "bind": "127.0.0.1:0",
            "workers": self._workers,
            "worker_class": "gthread",
            "threads": THREADS,
            "preload_app": True,
            "keepalive": 0,  # so that a client reaches all workers
            "graceful_timeout": 2,
            "backlog": 1024,
            "loglevel": "warning",
            "control_socket_disable": True,
            "when_ready": announce,
        }
        for name, value in options.items():
            if name in self.cfg.settings:  # the control socket is new in gunicorn 25
                self.cfg.set(name, value)

    def load(self) -> collections.abc.Callable[..., typing.Any]:
        return self._app


def announce(arbiter: typing.Any) -> None:
    """Print the port, and stop the server when standard input ends."""
    print(arbiter.LISTENERS[0].sock.getsockname()[1], flush=True)  # noqa: T201  # for the parent process

    def end() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end, daemon=True).start()


def main(given: str, workers: str) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s.%(msecs)03d %(process)d %(message)s")
    interrupt_commits()
    Served(build(WorkerSettings(**json.loads(given))), int(workers)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])

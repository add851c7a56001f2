"""The Flask application of the histories: interrupted commits, and reports of errors."""

import contextlib
import random
import typing
from wsgiref.types import StartResponse, WSGIEnvironment
from wsgiref.util import setup_testing_defaults

import psycopg
import pytest

from modern_di_replicas.drivers.psycopg_sync_connection import ReportingConnection
from modern_di_replicas.testing import LocalCluster
from tests.history import threaded


def test_a_commit_that_is_cut_off_has_lost_its_connection_when_it_returns(
    replicated_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INVARIANT: the connection is not closed later: on a busy machine, another request would have it by then."""
    monkeypatch.setattr(ReportingConnection, "commit", ReportingConnection.commit)  # restored at the end
    monkeypatch.setattr(threaded, "LATEST", 0.2)
    monkeypatch.setattr(random, "random", lambda: 1.0)
    threaded.interrupt_commits()
    with contextlib.closing(ReportingConnection.connect(replicated_cluster.primary.dsn)) as connection:
        connection.execute("SELECT 1")
        monkeypatch.setattr(threaded._commits, "interruption", "cancelled", raising=False)  # noqa: SLF001  # as a request does
        with contextlib.suppress(psycopg.OperationalError):  # the maximum duration of the commit
            connection.commit()

        assert connection.closed


def test_an_error_outside_of_the_views_is_answered_with_its_traceback() -> None:
    """For example at the end of a unit of work: Flask does not handle such an error."""

    def fails(environ: WSGIEnvironment, start_response: StartResponse) -> typing.NoReturn:  # noqa: ARG001  # as PEP 3333 has it
        msg = "its session was not closed"
        raise RuntimeError(msg)

    statuses: list[str] = []
    environ: WSGIEnvironment = {}
    setup_testing_defaults(environ)

    def start_response(status: str, *_: object) -> typing.Any:
        statuses.append(status)

    body = b"".join(threaded.telling(fails)(environ, start_response)).decode()

    assert statuses == ["500 Internal Server Error"]
    assert "RuntimeError: its session was not closed" in body

import contextvars
import datetime as dt

import pytest
from modern_di import Container

from modern_di_replicas import Intent, read_intent, write_intent
from modern_di_replicas.consistency.client import Client, known_client, request_of
from modern_di_replicas.consistency.job import begin_job, end_job, job_intent


NOTHING: list[object] = [None]
SECOND = dt.timedelta(seconds=1)


@read_intent
def reads() -> None: ...


@read_intent(wait=2 * SECOND)
def waits() -> None: ...


@write_intent
def writes() -> None: ...


def unmarked() -> None: ...


def intent_of(function: object) -> Intent:
    def run() -> Intent:
        begin_job(Container(groups=[]), NOTHING, function, wait=SECOND)
        assert not job_intent(Intent.read(), is_of_job=True).is_write, "what the unit of work declares wins"
        assert job_intent(None, is_of_job=False).is_write, "another unit of work, which declares nothing"
        return job_intent(None, is_of_job=True)

    return contextvars.Context().run(run)


@pytest.mark.parametrize(
    ("function", "intent"),
    [
        (reads, Intent.read(wait=SECOND)),
        (waits, Intent.read(wait=2 * SECOND)),
        (writes, Intent.write()),
        (unmarked, Intent.write()),
    ],
    ids=["reads", "waits", "writes", "unmarked"],
)
def test_the_marker_of_a_function_is_the_intent_of_its_job(function: object, intent: Intent) -> None:
    """With the default `wait` of the setup; without a marker, it writes."""
    assert intent_of(function) == intent
    assert intent_of(function).endpoint.endswith(getattr(function, "__name__", ""))


def test_only_a_job_is_ended() -> None:
    """If an error occurred before the job began, the client of the request stays."""
    end_job()
    client = Client(is_request=True)
    with request_of(client):
        end_job()
        assert known_client() is client
        begin_job(Container(groups=[]), NOTHING, reads, wait=None)
        assert known_client() is not client
        end_job()
        assert known_client() is client

"""Jobs: the work for one message, in any framework."""

import collections.abc
import dataclasses
import datetime as dt

from modern_di import Container

from modern_di_replicas.consistency.carrying import client_of
from modern_di_replicas.consistency.client import Client, enter, known_client, leave
from modern_di_replicas.intent import NOTHING_DECLARED, Intent, marked_intent, resolve_intent


def begin_job(
    container: Container, carried: collections.abc.Iterable[object], *functions: object, wait: dt.timedelta | None
) -> None:
    """Begin a job in the current context, until `end_job`: its reads include the writes of the message's sender.

    Args:
        container: the worker's container.
        carried: the text in its message, or the texts of its messages; None for none.
        *functions: the objects that may be marked: the framework's wrapper of the function, and the function itself.
        wait: how long its reads wait for a replica, unless the marker says so.

    """
    client = Client(is_request=True)
    for each in carried:
        client.include(client_of(container, each))
    marked = next(filter(None, map(marked_intent, functions)), None)
    if marked is not None and not marked.is_write and marked.wait is None:
        marked = dataclasses.replace(marked, wait=wait)
    client.intent = resolve_intent(declared=None, endpoint=functions[-1], marked=marked)
    enter(client)


def end_job() -> None:
    """End the job of the current context, if there is one."""
    client = known_client()
    if client is not None and client.intent is not None:
        leave(client)


def job_intent(declared: Intent | None, *, is_of_job: bool) -> Intent:
    """Return the intent of a unit of work: declared in its context, or by the marker of its job's function.

    A job without a marker, and a unit of work of no job, writes.

    Args:
        declared: the intent in the context of the unit of work.
        is_of_job: whether the unit of work is that of the current job.

    """
    client = known_client() if is_of_job else None
    return declared or (None if client is None else client.intent) or NOTHING_DECLARED

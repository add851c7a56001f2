"""Units of work outside a request: jobs, scripts, command-line tools."""

import collections.abc
import contextlib
import dataclasses
import datetime as dt
import typing

from modern_di import Container, Scope

from modern_di_replicas.consistency.carrying import client_of, unit_of_work_client
from modern_di_replicas.consistency.client import Client, enter, known_client, leave
from modern_di_replicas.consistency.token import ConsistencyToken
from modern_di_replicas.intent import NOTHING_DECLARED, Intent, marked_intent, resolve_intent


@contextlib.asynccontextmanager
async def unit_of_work(
    container: Container,
    *,
    intent: Intent | None = None,
    token: ConsistencyToken | str | None = None,
    context: collections.abc.Mapping[type[typing.Any], typing.Any] | None = None,
) -> collections.abc.AsyncIterator[Container]:
    """Open a unit of work: a REQUEST-scoped container, which gives the session, and is closed at the end.

    Its reads include its own writes, and those of the units of work before it in the same task. Inside a request, they
    include those of the request, and the response carries the token of what is written here.

    Args:
        container: the application's container.
        intent: what the unit of work declares; default: nothing, so that it may write.
        token: what a message carried here (see `carried_token`), or a token: the reads include what it says. Of a text
            that is not accepted, nothing is known, and the primary reads.
        context: more values for the container.

    """
    values = {**(context or {}), **({} if intent is None else {Intent: intent})}
    with unit_of_work_client(container, token):
        async with container.build_child_container(scope=Scope.REQUEST, context=values) as unit:
            yield unit


def begin_job(
    container: Container, carried: collections.abc.Iterable[object], *functions: object, wait: dt.timedelta | None
) -> None:
    """Begin a job in the current context, until `end_job`: its reads include what the sender of its message wrote.

    Args:
        container: the worker's container.
        carried: what its message carries, or each of its messages; None for nothing.
        *functions: where its marker may be: what a framework has made of the function, and the function itself.
        wait: how long its reads wait for a replica, where the marker does not say so.

    """
    client = Client(is_request=True)
    for each in carried:
        client.know(client_of(container, each))
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
    """Return the intent of a unit of work: what its context declares, or the marker of its job's function.

    A job without a marker, and a unit of work of no job, writes.

    Args:
        declared: what the context of the unit of work declares.
        is_of_job: whether the unit of work is that of the current job.

    """
    client = known_client() if is_of_job else None
    return declared or (None if client is None else client.intent) or NOTHING_DECLARED

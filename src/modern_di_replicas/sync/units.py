"""Units of work outside a request: scripts, jobs, command-line tools."""

import collections.abc
import contextlib
import typing

from modern_di import Container, Scope

from modern_di_replicas.consistency.carrying import unit_of_work_client
from modern_di_replicas.consistency.token import ConsistencyToken
from modern_di_replicas.intent import NOTHING_DECLARED, Intent


@contextlib.contextmanager
def unit_of_work(
    container: Container,
    *,
    intent: Intent | None = None,
    token: ConsistencyToken | str | None = None,
    context: collections.abc.Mapping[type[typing.Any], typing.Any] | None = None,
) -> collections.abc.Iterator[Container]:
    """Open a unit of work: a REQUEST-scoped container, which gives the session, and is closed at the end.

    Its reads include its own writes, and those of the units of work before it in the same thread. Inside a request,
    they include those of the request, and the response carries the token of what is written here.

    Args:
        container: the application's container.
        intent: what the unit of work declares; default: nothing, so that it may write.
        token: what a message carried here (see `carried_token`), or a token: the reads include what it says. Of a text
            that is not accepted, nothing is known, and the primary reads.
        context: more values for the container.

    """
    values: dict[type[typing.Any], typing.Any] = {Intent: NOTHING_DECLARED, **(context or {})}
    if intent is not None:
        values[Intent] = intent
    with (
        unit_of_work_client(container, token),
        container.build_child_container(scope=Scope.REQUEST, context=values) as unit,
    ):
        yield unit

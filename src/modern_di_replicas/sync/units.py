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
    """Open a unit of work: a REQUEST-scoped container, which resolves the session and is closed at the end.

    Its reads include its own writes, and those of earlier units of work in the same thread. Inside a request, they
    include the writes of the request, and the response carries the token of the writes made here.

    Args:
        container: the application's container.
        intent: the intent of the unit of work; default: none, so that it may write.
        token: the text in a message (see `carried_token`), or a token, which the reads include. If a text is not
            accepted, the primary serves the reads.
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

"""Carry the token of a message's sender: to a job, or in an outbox.

A message carries the text of a token, as a cookie does, signed if the settings have a secret. There are two
differences. A message marks an unknown position, when its sender has not committed yet: the worker may be faster than
that commit. And the token does not expire: a message may wait in a queue for days.
"""

import collections.abc
import contextlib
import typing

from modern_di import Container

from modern_di_replicas.consistency.client import (
    Client,
    client_of_request,
    current_client,
    known_client,
    request_of,
)
from modern_di_replicas.consistency.token import ConsistencyToken
from modern_di_replicas.tokens.validation import Tokens


POSITION_UNKNOWN: typing.Final = "unknown"
"""The text instead of a token when the position is unknown: the job reads the primary."""


CARRIED: typing.Final = "consistency-token"
"""The name of the label or header of a message."""


def carried_token(container: Container) -> str | None:
    """Return the token text for a message that is sent now, so that its job reads the writes made here.

    The text is `"unknown"` while a write is not committed yet; None when nothing was written. `unit_of_work(token=...)`
    accepts all three.

    Args:
        container: the application's, or one below it.

    """
    client = known_client()
    if client is None:
        return None
    if client.position_unknown or client.has_more_to_commit:
        return POSITION_UNKNOWN
    return None if client.token is None else container.resolve(Tokens).encode(client.token)


def carry(container: Container, headers: collections.abc.MutableMapping[str, typing.Any]) -> None:
    """Put the token text into the headers of a message.

    Args:
        container: the application's.
        headers: the headers of the message; they stay unchanged if nothing was written here.

    """
    carried = carried_token(container)
    if carried is not None:
        headers[CARRIED] = carried


def client_of(container: Container, carried: object) -> Client:
    """Return the client of a job, whose reads include the writes of the message's sender.

    A text that is not accepted, because it is forged or of another database, gives no position: such a job reads the
    primary.

    Args:
        container: the application's, or one below it.
        carried: the text in the message; None for none.

    """
    if carried is None or isinstance(carried, ConsistencyToken):
        return Client(token=carried, is_request=True)
    token = None
    if isinstance(carried, str) and carried != POSITION_UNKNOWN:
        token = container.resolve(Tokens).decode(carried, expires=False)
    return Client(token=token, is_request=True, position_unknown=token is None)


@contextlib.contextmanager
def unit_of_work_client(container: Container, token: ConsistencyToken | str | None) -> collections.abc.Iterator[None]:
    """Give a unit of work outside a request its own client, which knows the writes of the enclosing one.

    Args:
        container: the application's, or one below it.
        token: the text in a message; None for none.

    """
    if token is None and client_of_request() is not None:
        yield
        return
    own = client_of(container, token)
    if (enclosing := known_client()) is not None:
        own.include(enclosing)
    try:
        with request_of(own):
            yield
    finally:
        own.report_to(current_client())

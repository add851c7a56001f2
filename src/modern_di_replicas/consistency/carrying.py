"""How a message carries what its sender has written: to a job, or in an outbox.

A message carries the text of a token, as the cookie of a client does, signed where the settings have a secret. Two
things differ. It says so when the position is unknown because its sender has not committed yet: the worker may be
faster than that commit. And it does not expire: a message may wait in a queue for days, and still names a position.
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
"""What a message carries in place of a token when the position is unknown: its job reads the primary."""


CARRIED: typing.Final = "consistency-token"
"""The name of the label or header of a message."""


def carried_token(container: Container) -> str | None:
    """Return what a message that is sent now has to carry, so that its job reads what was written here.

    It is the text of a token; `"unknown"` while something is not committed yet; None when nothing was written.
    `unit_of_work(token=...)` takes all three.

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
    """Put what a message has to carry into its headers.

    Args:
        container: the application's.
        headers: those of the message; what is in them stays, where nothing was written here.

    """
    carried = carried_token(container)
    if carried is not None:
        headers[CARRIED] = carried


def client_of(container: Container, carried: object) -> Client:
    """Return the client of a job, whose reads include what the sender of its message had written.

    What cannot be believed, because it is forged or of another database, says nothing of what was written: such a job
    reads the primary.

    Args:
        container: the application's, or one below it.
        carried: what the message carries; None for nothing.

    """
    if carried is None or isinstance(carried, ConsistencyToken):
        return Client(token=carried, is_request=True)
    token = None
    if isinstance(carried, str) and carried != POSITION_UNKNOWN:
        token = container.resolve(Tokens).decode(carried, expires=False)
    return Client(token=token, is_request=True, position_unknown=token is None)


@contextlib.contextmanager
def unit_of_work_client(container: Container, token: ConsistencyToken | str | None) -> collections.abc.Iterator[None]:
    """Give a unit of work outside a request a client of its own, which knows what was written around it.

    Args:
        container: the application's, or one below it.
        token: what a message carried here; None for nothing.

    """
    if token is None and client_of_request() is not None:
        yield
        return
    own = client_of(container, token)
    if (enclosing := known_client()) is not None:
        own.know(enclosing)
    try:
        with request_of(own):
            yield
    finally:
        own.tell(current_client())

"""What one request does; the same for each contender."""

import collections.abc
import dataclasses
import typing


Answer = dict[str, typing.Any]
Run = collections.abc.Callable[[typing.Any, int], collections.abc.Awaitable[Answer]]
"""Does the work for one key in a session, or on a connection, and returns what a handler would answer."""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Operation:
    name: str
    title: str
    writes: bool = False


OPERATIONS: typing.Final = (
    Operation(name="orm_read", title="ORM read by key"),
    Operation(name="core_read", title="Core read"),
    Operation(name="list_100", title="100 rows with their author"),
    Operation(name="write", title="write", writes=True),
)
WITNESS: typing.Final = Operation(name="witness", title="read by key, and which server answered")
"""For the faults only."""

BY_NAME: typing.Final = {operation.name: operation for operation in (*OPERATIONS, WITNESS)}

"""The operations of one request, the same for each contender."""

import collections.abc
import dataclasses
import typing


Answer = dict[str, typing.Any]
Run = collections.abc.Callable[[typing.Any, int], collections.abc.Awaitable[Answer]]
"""Performs the operation for one key in a session, or on a connection, and returns the handler's result."""


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
"""Used only in the fault runs."""

BY_NAME: typing.Final = {operation.name: operation for operation in (*OPERATIONS, WITNESS)}

"""The same FastAPI application for every contender: a route for each operation."""

import typing

import fastapi

from benchmarks.contenders.contender import Contender
from benchmarks.work.operations import BY_NAME, Operation


def build(contender: Contender) -> fastapi.FastAPI:
    parts = contender.fastapi()

    def add(operation: Operation, dependency: typing.Any) -> None:
        run = contender.work[operation.name]

        async def handle(key: int, session: typing.Any = dependency) -> dict[str, typing.Any]:
            return await run(session, key)

        route = parts.app.post if operation.writes else parts.app.get
        route(f"/{operation.name}/{{key}}")(handle)

    for operation in BY_NAME.values():
        add(operation, parts.writing if operation.writes else parts.reading)
    return parts.app

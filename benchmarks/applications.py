"""The same application for every contender, in both frameworks: a route for each operation."""

import typing

import fastapi
import litestar
from litestar.di import NamedDependency, Provide

from benchmarks.contenders.contender import Contender
from benchmarks.work.operations import BY_NAME, Operation


def build_fastapi(contender: Contender) -> fastapi.FastAPI:
    parts = contender.fastapi()

    def add(operation: Operation, dependency: typing.Any) -> None:
        run = contender.work[operation.name]

        async def handle(key: int, session: typing.Any = dependency) -> dict[str, typing.Any]:
            answer: dict[str, typing.Any] = await run(session, key)
            return answer

        route = parts.app.post if operation.writes else parts.app.get
        route(f"/{operation.name}/{{key}}")(handle)

    for operation in BY_NAME.values():
        add(operation, parts.writing if operation.writes else parts.reading)
    return parts.app


def build_litestar(contender: Contender) -> litestar.Litestar:
    parts = contender.litestar()

    def handler(operation: Operation, dependency: Provide | None) -> typing.Any:
        run = contender.work[operation.name]

        async def handle(key: int, session: NamedDependency[typing.Any]) -> dict[str, typing.Any]:
            answer: dict[str, typing.Any] = await run(session, key)
            return answer

        route = litestar.post if operation.writes else litestar.get
        dependencies = {} if dependency is None else {"session": dependency}
        return route(f"/{operation.name}/{{key:int}}", dependencies=dependencies)(handle)

    handlers = [
        handler(operation, parts.writing if operation.writes else parts.reading) for operation in BY_NAME.values()
    ]
    return litestar.Litestar(handlers, plugins=parts.plugins, lifespan=[*parts.lifespan], openapi_config=None)

"""Strawberry's concurrent resolvers, with `SessionFactory` in the context."""

import typing

import fastapi
import pytest
import strawberry
from modern_di_fastapi import FromDI
from sqlalchemy import func, select
from strawberry.fastapi import GraphQLRouter

from modern_di_replicas import SessionFactory
from tests.packages.conftest import Word, Words


Info = strawberry.Info[dict[str, typing.Any], None]


@strawberry.type
class Query:
    @strawberry.field
    async def count(self, info: Info) -> int:
        async with info.context["sessions"]() as session:
            return int(await session.scalar(select(func.count()).select_from(Word)))

    @strawberry.field
    async def text(self, info: Info, id: int) -> str:  # noqa: A002  # the name in the schema
        async with info.context["sessions"]() as session:
            return str((await session.get_one(Word, id)).text)


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def add(self, info: Info, text: str) -> int:
        async with info.context["sessions"]() as session:
            session.add(word := Word(text=text))
            await session.commit()
            return word.id


async def context(
    sessions: typing.Annotated[SessionFactory, FromDI(SessionFactory)],
) -> dict[str, typing.Any]:
    return {"sessions": sessions}


# Sentry, if another test has started it, detects strawberry automatically.
@pytest.mark.filterwarnings("ignore:Assuming strawberry is running sync")
async def test_concurrent_resolvers_read_from_a_replica_and_mutations_write(words: Words) -> None:
    """A query sent with `GET` reads; one sent with `POST` may write."""
    app = fastapi.FastAPI()
    router = GraphQLRouter(strawberry.Schema(Query, Mutation), context_getter=context)
    app.include_router(router, prefix="/graphql")
    query = "{ count a: text(id: 1) b: text(id: 2) c: text(id: 3) }"
    expected = {"count": 3, "a": "one", "b": "two", "c": "three"}
    async with words.serving(app) as client:
        assert (await client.get("/graphql", params={"query": query})).json()["data"] == expected
        assert len(set(words.log.servers)) == 1
        assert words.servers() == {"a replica"}
        assert (await client.post("/graphql", json={"query": query})).json()["data"] == expected
        assert words.servers() == {"the primary"}
        added = await client.post("/graphql", json={"query": 'mutation { add(text: "four") }'})
        assert added.json()["data"] == {"add": 4}
        assert words.servers() == {"the primary"}
        counted = await client.get("/graphql", params={"query": "{ count }"})
        assert counted.json()["data"] == {"count": 4}

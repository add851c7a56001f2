"""fastapi-pagination with the injected session."""

import typing

import fastapi
import fastapi_pagination
from fastapi_pagination.ext.sqlalchemy import apaginate
from modern_di_fastapi import FromDI
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tests.packages.conftest import Word, Words


class WordModel(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    text: str


async def test_a_page_and_its_count_are_read_from_one_server(words: Words) -> None:
    """On a replica in a `GET`, on the primary in a `POST`, with the same result."""
    app = fastapi.FastAPI()

    @app.api_route("/words", methods=["GET", "POST"])
    async def page(
        session: typing.Annotated[AsyncSession, FromDI(AsyncSession)],
    ) -> fastapi_pagination.Page[WordModel]:
        found: fastapi_pagination.Page[WordModel] = await apaginate(session, select(Word).order_by(Word.id))
        return found

    fastapi_pagination.add_pagination(app)
    async with words.serving(app) as client:
        read = (await client.get("/words", params={"size": 2})).json()
        assert [word["text"] for word in read["items"]] == ["one", "two"]
        assert read["total"] == 3
        assert len(set(words.log.servers)) == 1
        assert words.servers() == {"a replica"}
        assert (await client.post("/words", params={"size": 2})).json() == read
        assert words.servers() == {"the primary"}

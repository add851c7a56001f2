"""Sqladmin with a session maker on our engines."""

import fastapi
import sqladmin
from sqlalchemy.ext.asyncio import async_sessionmaker

from tests.packages.conftest import Word, Words


class WordAdmin(sqladmin.ModelView, model=Word):
    column_list = ("id", "text")


async def test_an_admin_reads_and_writes_on_the_primary(words: Words) -> None:
    """It edits the rows that it shows, so everything is on the primary."""
    app = fastapi.FastAPI()
    admin = sqladmin.Admin(app, session_maker=async_sessionmaker(words.primary, expire_on_commit=False))
    admin.add_view(WordAdmin)
    async with words.serving(app) as client:
        assert "three" in (await client.get("/admin/word/list")).text
        assert words.servers() == {"the primary"}
        edited = await client.post("/admin/word/edit/1", data={"text": "first"})
        assert edited.status_code == 302
        assert words.servers() == {"the primary"}
        assert "first" in (await client.get("/admin/word/details/1")).text


async def test_an_admin_that_only_shows_can_read_from_replicas(words: Words) -> None:
    """With a session maker on the engine of all replicas."""
    app = fastapi.FastAPI()
    admin = sqladmin.Admin(app, session_maker=async_sessionmaker(words.replicas, expire_on_commit=False))
    admin.add_view(WordAdmin)
    async with words.serving(app) as client:
        assert "three" in (await client.get("/admin/word/list")).text
        assert "one" in (await client.get("/admin/word/details/1")).text
        assert words.servers() == {"a replica"}

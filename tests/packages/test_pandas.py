"""Pandas, which uses a synchronous connection."""

import pytest
from sqlalchemy import select, text

from tests.packages.conftest import Word, Words


pandas = pytest.importorskip("pandas", reason="large: installed by `make test-lowest` only")


async def test_frames_are_read_from_replicas_and_written_to_the_primary(words: Words) -> None:
    """Whole or in chunks, through `run_sync` of a connection of the engine."""
    statement = select(Word).order_by(Word.id)
    async with words.monitored():
        async with words.replicas.connect() as connection:
            frame = await connection.run_sync(lambda sync: pandas.read_sql(statement, sync))
            assert list(frame["text"]) == ["one", "two", "three"]
            chunks = await connection.run_sync(lambda sync: list(pandas.read_sql(statement, sync, chunksize=2)))
            assert [len(chunk) for chunk in chunks] == [2, 1]
            table = await connection.run_sync(lambda sync: pandas.read_sql_table("word", sync))
            assert len(table) == 3
        assert words.servers() == {"a replica"}
        async with words.primary.begin() as connection:
            await connection.run_sync(lambda sync: frame.to_sql("copied", sync, index=False))
            assert await connection.scalar(text("SELECT count(*) FROM copied")) == 3
        assert words.servers() == {"the primary"}

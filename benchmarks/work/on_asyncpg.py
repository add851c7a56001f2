"""The same operations on a connection of asyncpg, without an ORM."""

import typing

from benchmarks.work.operations import Answer, Run


READ: typing.Final = "SELECT id, title, copies, author_id FROM books WHERE id = $1"
READ_COLUMNS: typing.Final = "SELECT id, title, copies FROM books WHERE id = $1"
LIST: typing.Final = (
    "SELECT books.id, title, copies, author_id, authors.id AS author, name"
    " FROM books JOIN authors ON authors.id = author_id WHERE books.id BETWEEN $1 AND $2"
)
WRITE: typing.Final = "UPDATE books SET copies = copies + 1 WHERE id = $1 RETURNING copies"


async def orm_read(connection: typing.Any, key: int) -> Answer:
    row = await connection.fetchrow(READ, key)
    return {"id": row["id"], "title": row["title"], "copies": row["copies"]}


async def core_read(connection: typing.Any, key: int) -> Answer:
    row = await connection.fetchrow(READ_COLUMNS, key)
    return {"id": row["id"], "title": row["title"], "copies": row["copies"]}


async def list_100(connection: typing.Any, key: int) -> Answer:
    first = min(key, 900)
    rows = await connection.fetch(LIST, first, first + 99)
    return {"books": [[row["id"], row["title"], row["name"]] for row in rows]}


async def write(connection: typing.Any, key: int) -> Answer:
    return {"copies": await connection.fetchval(WRITE, key)}


async def witness(connection: typing.Any, key: int) -> Answer:
    row = await connection.fetchrow("SELECT copies, pg_is_in_recovery() FROM books WHERE id = $1", key)
    return {"copies": row[0], "replica": row[1]}


WORK: typing.Final[dict[str, Run]] = {run.__name__: run for run in (orm_read, core_read, list_100, write, witness)}

"""Direct use of the driver's connection, bypassing SQLAlchemy, with the API of each driver."""

import collections.abc
import io
import typing

from sqlalchemy import AdaptedConnection, Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from modern_di_replicas import PrimaryEngine
from tests.driver import DRIVER


INSERT: typing.Final = "INSERT INTO delivery VALUES (1)"

Handler = collections.abc.Callable[[AsyncSession, PrimaryEngine], collections.abc.Awaitable[None]]


async def driver_of(connection: AsyncConnection) -> typing.Any:
    return (await connection.get_raw_connection()).driver_connection


def run_by_adapter(connection: Connection, work: collections.abc.Callable[[typing.Any], typing.Any]) -> None:
    """Pass the driver's connection to a function, through SQLAlchemy's adapter."""
    typing.cast(AdaptedConnection, connection.connection.dbapi_connection).run_async(work)


class OnAsyncpg:
    """It commits each statement outside a transaction."""

    @staticmethod
    async def driver_copy(_: AsyncSession, primary: PrimaryEngine) -> None:
        async with primary.begin() as connection:
            await (await driver_of(connection)).copy_records_to_table("delivery", records=[(1,)])

    @staticmethod
    async def driver_copy_from_file(_: AsyncSession, primary: PrimaryEngine) -> None:
        async with primary.connect() as connection:
            await (await driver_of(connection)).copy_to_table("delivery", source=io.BytesIO(b"1\n"))

    @staticmethod
    async def driver_executemany(_: AsyncSession, primary: PrimaryEngine) -> None:
        async with primary.connect() as connection:
            await (await driver_of(connection)).executemany("INSERT INTO delivery VALUES ($1)", [(1,)])

    @staticmethod
    async def driver_of_a_session(session: AsyncSession, _: PrimaryEngine) -> None:
        driver = await driver_of(await session.connection())
        await driver.execute("INSERT INTO delivery VALUES ($1)", 1)
        await session.commit()

    @staticmethod
    async def driver_transaction(session: AsyncSession, _: PrimaryEngine) -> None:
        driver = await driver_of(await session.connection())
        async with driver.transaction():
            await driver.fetchval("SELECT sell()")
        await session.rollback()

    @staticmethod
    async def run_async(_: AsyncSession, primary: PrimaryEngine) -> None:
        async with primary.connect() as connection:
            await connection.run_sync(run_by_adapter, lambda driver: driver.execute(INSERT))

    @staticmethod
    async def read_by_driver(session: AsyncSession, _: PrimaryEngine) -> None:
        driver = await driver_of(await session.connection())
        async with driver.transaction():
            await driver.fetch("SELECT amount FROM stock")
            await driver.fetchrow("SELECT amount FROM stock")
            await driver.fetchmany("SELECT amount FROM stock WHERE id = $1", [(1,)])
            [_ async for _ in driver.cursor("SELECT amount FROM stock")]
            await driver.copy_from_query("SELECT amount FROM stock", output=io.BytesIO())
        await session.commit()


class OnPsycopg:
    """It begins transactions implicitly, and has its own commit methods beside SQLAlchemy's."""

    @staticmethod
    async def driver_copy(_: AsyncSession, primary: PrimaryEngine) -> None:
        async with primary.begin() as connection:
            driver = await driver_of(connection)
            async with driver.cursor() as cursor, cursor.copy("COPY delivery FROM STDIN") as copy:
                await copy.write_row((1,))

    @staticmethod
    async def driver_commit_after_copy(_: AsyncSession, primary: PrimaryEngine) -> None:
        async with primary.connect() as connection:
            driver = await driver_of(connection)
            async with driver.cursor() as cursor, cursor.copy(b"COPY delivery FROM STDIN") as copy:
                await copy.write(b"1\n")
            await driver.commit()

    @staticmethod
    async def driver_executemany(_: AsyncSession, primary: PrimaryEngine) -> None:
        async with primary.connect() as connection:
            driver = await driver_of(connection)
            async with driver.cursor() as cursor:
                await cursor.executemany("INSERT INTO delivery VALUES (%s)", [(1,)])
            await driver.commit()

    @staticmethod
    async def driver_of_a_session(session: AsyncSession, _: PrimaryEngine) -> None:
        driver = await driver_of(await session.connection())
        await driver.execute("INSERT INTO delivery VALUES (%s)", (1,))
        await session.commit()

    @staticmethod
    async def driver_transaction(session: AsyncSession, _: PrimaryEngine) -> None:
        driver = await driver_of(await session.connection())
        async with driver.transaction():
            await (await driver.execute("SELECT sell()")).fetchone()
        await session.rollback()

    @staticmethod
    async def driver_pipeline(_: AsyncSession, primary: PrimaryEngine) -> None:
        async with primary.begin() as connection:
            driver = await driver_of(connection)
            async with driver.pipeline():
                await driver.execute(INSERT)

    @staticmethod
    async def driver_stream(_: AsyncSession, primary: PrimaryEngine) -> None:
        async with primary.begin() as connection:
            driver = await driver_of(connection)
            async with driver.cursor() as cursor:
                [_ async for _ in cursor.stream(f"{INSERT} RETURNING amount")]

    @staticmethod
    async def driver_in_autocommit(_: AsyncSession, primary: PrimaryEngine) -> None:
        async with primary.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await (await driver_of(connection)).execute(INSERT)

    @staticmethod
    async def run_async(_: AsyncSession, primary: PrimaryEngine) -> None:
        async with primary.begin() as connection:
            await connection.run_sync(run_by_adapter, lambda driver: driver.execute(INSERT))

    @staticmethod
    async def read_by_driver(session: AsyncSession, _: PrimaryEngine) -> None:
        driver = await driver_of(await session.connection())
        async with driver.transaction(), driver.cursor() as cursor:
            await (await driver.execute("SELECT amount FROM stock")).fetchall()
            await cursor.executemany("SELECT amount FROM stock WHERE id = %s", [(1,)], returning=True)
            [_ async for _ in cursor.stream("SELECT amount FROM stock")]
            async with driver.cursor("named") as on_server:
                await on_server.execute("SELECT amount FROM stock")
                await on_server.fetchall()
        await session.commit()


_WAYS: typing.Final[dict[str, Handler]] = {
    name: way.__func__
    for name, way in vars(OnAsyncpg if DRIVER == "asyncpg" else OnPsycopg).items()
    if isinstance(way, staticmethod)
}

read_by_driver: typing.Final = _WAYS.pop("read_by_driver")

WAYS_OF_DRIVER: typing.Final = tuple(_WAYS.values())
"""The ways to commit a write."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.testing import empty_database


PUBLIC = text("SELECT nspowner::regrole::text, nspacl::text FROM pg_namespace WHERE nspname = 'public'")


async def test_accounts_have_the_same_privileges_in_an_emptied_and_a_new_database(
    database: ReplicationSettings,
) -> None:
    """INVARIANT: tests with ordinary accounts pass after other tests as well."""
    owner = create_async_engine(database.declared_primary.url)
    async with owner.begin() as connection:
        await connection.execute(text("CREATE TABLE left_over (n int)"))
    async with owner.connect() as connection:
        new = (await connection.execute(PUBLIC)).one()
        await connection.rollback()
        await empty_database(database)
        assert (await connection.execute(PUBLIC)).one() == new
        assert await connection.scalar(text("SELECT to_regclass('left_over')")) is None
    await owner.dispose()

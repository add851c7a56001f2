"""Detection of a transaction pooler that is not declared in the settings."""

import pytest
import sqlalchemy.exc
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from modern_di_replicas.cluster.engines.undeclared_pooler import warn_of_undeclared_pooler
from modern_di_replicas.testing import LocalCluster


async def test_a_prepared_statement_that_is_not_there_is_one_warning(
    replicated_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Other errors cause no warning; each server is named once, with the setting to declare."""
    engine = create_async_engine(replicated_cluster.primary.url)
    warn_of_undeclared_pooler(engine.sync_engine, "db-1")
    for statement in ("SELECT no_such_column", "EXECUTE no_such_statement", "EXECUTE no_such_statement"):
        async with engine.connect() as connection:
            with pytest.raises(sqlalchemy.exc.DBAPIError):
                await connection.execute(text(statement))
    await engine.dispose()
    (warning,) = caplog.messages
    assert warning.startswith("db-1 seems to be behind a pooler")
    assert "(SQLSTATE 26000): set pooled=True" in warning
